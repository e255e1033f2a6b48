"""What is sent and what comes back: frozen attrs classes, with no knowledge of JSON."""

from collections.abc import Mapping
from datetime import datetime
from typing import NoReturn, Self

import attrs

from suno_persona import _checks
from suno_persona.errors import PersonaError, UsageError


class _Extra(dict[str, object]):
    """A read-only mapping that, unlike `types.MappingProxyType`, can be pickled, copied and written as JSON."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, object]]]:
        return type(self), (dict(self),)


def _raise_read_only(*_: object, **__: object) -> NoReturn:
    raise TypeError("extra is read-only")


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(_Extra, _name, _raise_read_only)

_NOTHING_EXTRA = _Extra({})


def _read_only(members: Mapping[str, object]) -> Mapping[str, object]:
    return members if isinstance(members, _Extra) else _Extra(members)


def _extra() -> Mapping[str, object]:
    return attrs.field(default=_NOTHING_EXTRA, converter=_read_only, hash=False)


@attrs.frozen(kw_only=True)
class ClipMetadata:
    """How a clip was made."""

    tags: str | None = None
    """The style it was made in, as text: `"electronic pop, tropical house fusion"`."""

    prompt: str | None = None
    """The lyrics or the prompt it was made from; may be empty."""

    type: str | None = None
    """Where it comes from: `"gen"` for a generated one."""

    duration: float | None = None
    """Its length in seconds: `190`."""

    refund_credits: bool | None = None
    """Whether the credits that it cost were refunded."""

    stream: bool | None = None
    """Whether it could be streamed while it was made."""

    can_remix: bool | None = None
    """Whether it may be remixed. Not in the contract, as the two below; some gateways send them."""

    is_remix: bool | None = None
    """Whether it is a remix itself."""

    priority: int | None = None
    """Its priority in the queue, a number without a unit: `10`."""

    extra: Mapping[str, object] = _extra()
    """What the fields cannot hold, as received."""


@attrs.frozen(kw_only=True)
class Clip:
    """A generated song."""

    id: str | None = None
    """Its id: `"54834687-5e79-4f08-8e14-cf188f15b598"`."""

    video_url: str | None = None
    """The address of its video, an MP4."""

    audio_url: str | None = None
    """The address of its sound, an MP3."""

    image_url: str | None = None
    """The address of its cover."""

    image_large_url: str | None = None
    """The address of its cover in a larger size."""

    major_model_version: str | None = None
    """The version of the model that made it: `"v4"`."""

    model_name: str | None = None
    """The name of the model that made it: `"chirp-v4"`."""

    metadata: ClipMetadata | None = None
    """How it was made."""

    is_liked: bool | None = None
    """Whether the account liked it."""

    user_id: str | None = None
    """The id of the account it belongs to: `"21de6d0f-398c-467c-9957-8fa9065f3ca6"`."""

    display_name: str | None = None
    """The name that the account shows: `"SensoryRecorders4685"`."""

    handle: str | None = None
    """The account's handle: `"sensoryrecorders4685"`."""

    is_handle_updated: bool | None = None
    """Whether the account changed its handle."""

    avatar_image_url: str | None = None
    """The address of the account's picture."""

    is_trashed: bool | None = None
    """Whether it lies in the trash."""

    created_at: datetime | None = None
    """When it was made, with its time zone: `2024-12-23T10:34:30.144Z`."""

    status: str | None = None
    """How far its making is: `"complete"`."""

    title: str | None = None
    """Its title: `"noks noko wane"`."""

    play_count: int | None = None
    """How often it was played."""

    upvote_count: int | None = None
    """How often it was voted for."""

    is_public: bool | None = None
    """Whether everybody can see it."""

    entity_type: str | None = None
    """The kind of object it is: `"song_schema"`. Not in the contract, as the three below; some gateways send them."""

    flag_count: int | None = None
    """How often it was reported."""

    display_tags: str | None = None
    """The style as it is shown, separated by commas: `"folk, spoken-word"`."""

    allow_comments: bool | None = None
    """Whether others may comment on it."""

    extra: Mapping[str, object] = _extra()
    """What the fields cannot hold, as received."""


@attrs.frozen(kw_only=True)
class PersonaClip:
    """A clip as a part of a persona."""

    clip: Clip | None = None
    """The clip."""

    id: int | None = None
    """The id of this part, not of the clip: `11288925`."""

    extra: Mapping[str, object] = _extra()
    """What the fields cannot hold, as received."""


@attrs.frozen(kw_only=True)
class Persona:
    """A reusable voice and style. Pass `id` on as `persona_id` when you generate music.

    Only `id` is always there; any other field may be `None`, and `persona_clips` empty.
    """

    id: str
    """Its id: `"fd213afd-ac1c-4822-9802-c1c0ea45e77b"`."""

    name: str | None = None
    """Its name."""

    description: str | None = None
    """What it sounds like, in words."""

    root_clip_id: str | None = None
    """The id of the clip it was made from."""

    clip: Clip | None = None
    """The clip it was made from."""

    user_display_name: str | None = None
    """The name that its account shows: `"SensoryRecorders4685"`."""

    user_handle: str | None = None
    """Its account's handle: `"sensoryrecorders4685"`."""

    user_image_url: str | None = None
    """The address of its account's picture."""

    persona_clips: tuple[PersonaClip, ...] = ()
    """The clips that belong to it."""

    image_s3_id: str | None = None
    """The id of its picture in the service's store: `"image_54834687"`. Not in the contract, as all fields below; some
    gateways send them."""

    is_public: bool | None = None
    """Whether everybody can see it."""

    is_owned: bool | None = None
    """Whether it belongs to the account of the key."""

    is_trashed: bool | None = None
    """Whether it lies in the trash."""

    clip_count: int | None = None
    """How many clips belong to it: `1`."""

    persona_type: str | None = None
    """Its kind: `"vox"` for one that was made from a voice."""

    vox_audio_id: str | None = None
    """The id of the voice it was made from: `"9e196fa1-20f3-43c1-8066-06a2a6b6bea9"`."""

    vocal_start_s: float | None = None
    """Where the voice begins in its clip, in seconds: `0`."""

    vocal_end_s: float | None = None
    """Where the voice ends in its clip, in seconds: `23.24`."""

    user_input_styles: str | None = None
    """The style that its user described, as text: `"pop"`."""

    extra: Mapping[str, object] = _extra()
    """What the fields cannot hold, as received: members without a field, and members whose value has another type than
    the field. Takes no part in the hash."""

    def music_fields(self) -> dict[str, str]:
        """Return what the next step needs of this persona, to be merged into the body of a music request.

        Without a `root_clip_id`, there is no `artist_clip_id`. It picks no model: which one sings with a persona
        depends on the gateway.

        >>> Persona(id="fd213afd").music_fields()
        {'task': 'artist_consistency', 'persona_id': 'fd213afd'}
        """
        fields = {"task": "artist_consistency", "persona_id": self.id}
        return fields if self.root_clip_id is None else {**fields, "artist_clip_id": self.root_clip_id}


def _frozen(members: Mapping[str, object]) -> Mapping[str, object]:
    return members if members is _NOTHING_EXTRA else _Extra(_checks.extra_members(members))


def _root_clip_alone(request: "CreatePersonaRequest") -> tuple[str, ...]:
    return (request.root_clip_id,)


@attrs.frozen(kw_only=True)
class CreatePersonaRequest:
    """What to create a persona from. Its values are checked when it is made.

    Raises `InvalidRequestError`, which names the field, for blank text, text that cannot be encoded as UTF-8, an id
    with white space or control characters, a URL instead of an id, no clips, an `is_public` that is not a `bool`, or
    an `extra` that JSON cannot express.

    >>> CreatePersonaRequest(
    ...     root_clip_id="54834687", name="Neon", description="Night drive"
    ... ).clips
    ('54834687',)
    >>> CreatePersonaRequest(root_clip_id="54834687", name="", description="Night drive")
    Traceback (most recent call last):
    suno_persona.errors.InvalidRequestError: name must be non-empty text; got '' (str)
    """

    root_clip_id: str = attrs.field(validator=_checks.is_id)
    """The id of the clip to create the persona from. The clip must exist, must not have been uploaded, and must belong
    to the key's account (the contract)."""

    name: str = attrs.field(validator=_checks.is_text)
    """The name of the persona."""

    description: str = attrs.field(validator=_checks.is_text)
    """What it sounds like, in words."""

    clips: tuple[str, ...] = attrs.field(
        default=attrs.Factory(_root_clip_alone, takes_self=True), converter=_checks.clips, validator=_checks.are_ids
    )
    """The ids of the clips that belong to the persona, at least one; defaults to `root_clip_id` alone."""

    is_public: bool = attrs.field(default=False, validator=_checks.is_bool)
    """Whether to publish the persona: everybody can see it then. Private by default."""

    extra: Mapping[str, object] = attrs.field(default=_NOTHING_EXTRA, converter=_frozen, hash=False)
    """More members of the body, for gateways that take them: `{"persona_type": "vox", "vocal_start_s": 0}`. A read-only
    mapping of names to JSON values; none may have the name of another field. Takes no part in the hash."""


@attrs.frozen
class Outcome:
    """How one request of a batch ended: with a persona, or with the error that `create` would have raised."""

    index: int
    """The index of the request in the batch, from 0."""

    request: CreatePersonaRequest
    """The request, as it was passed."""

    persona: Persona | None = None
    """The persona; `None` where there is an error."""

    error: PersonaError | None = None
    """The error; `None` where there is a persona."""

    key: str | None = None
    """The request's key in the journal; `None` without a journal."""

    request_id: str | None = None
    """The service's id of the exchange, also of a success: what its support asks for. `None` where it sent none."""

    def __attrs_post_init__(self) -> None:
        if (self.persona is None) is (self.error is None):
            raise UsageError(message="an Outcome must have either a persona or an error; got both or neither")

    def result(self) -> Persona:
        """Return the persona, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.persona is not None  # noqa: S101 - for type checkers
        return self.persona
