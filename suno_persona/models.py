"""The request, the response and the outcome: frozen attrs classes, with no knowledge of JSON."""

from collections.abc import Mapping
from datetime import datetime
from typing import NoReturn, Self

import attrs

from suno_persona import _checks
from suno_persona.errors import PersonaError, UsageError


class Extra(dict[str, object]):
    """A read-only mapping that, unlike `types.MappingProxyType`, can be pickled, copied and written as JSON."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, object]]]:
        return type(self), (dict(self),)


def _raise_read_only(*_: object, **__: object) -> NoReturn:
    raise TypeError("extra is read-only")


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(Extra, _name, _raise_read_only)

NO_EXTRA = Extra()


def _read_only(members: Mapping[str, object]) -> Extra:
    return members if isinstance(members, Extra) else Extra(members)


@attrs.frozen(repr=False)
class _Model:
    def __repr__(self) -> str:
        """Show the fields that are set: most of them are `None` in most responses."""
        values = ((field.name, getattr(self, field.name)) for field in attrs.fields(type(self)))
        shown = [f"{name}={value!r}" for name, value in values if value not in (None, "", (), {})]
        return f"{type(self).__name__}({', '.join(shown)})"


@attrs.frozen(kw_only=True, repr=False)
class ClipMetadata(_Model):
    """How a clip was generated."""

    tags: str | None = None
    """Style: `"electronic pop, tropical house fusion"`."""
    prompt: str | None = None
    """Lyrics or prompt; may be empty."""
    type: str | None = None
    """Origin: `"gen"` for a generated clip."""
    duration: float | None = None
    """Length in seconds: `190`."""
    refund_credits: bool | None = None
    """Whether its credits were refunded."""
    stream: bool | None = None
    """Whether it could be streamed during generation."""
    can_remix: bool | None = None
    """Whether it may be remixed. Not in the contract, as the two below; some gateways send them."""
    is_remix: bool | None = None
    """Whether it is a remix itself."""
    priority: int | None = None
    """Priority in the queue, without a unit: `10`."""
    extra: Extra = attrs.field(default=NO_EXTRA, converter=_read_only, hash=False)
    """Members that the fields cannot hold, as received."""


@attrs.frozen(kw_only=True, repr=False)
class Clip(_Model):
    """A generated song."""

    id: str | None = None
    """Clip id: `"54834687-5e79-4f08-8e14-cf188f15b598"`."""
    video_url: str | None = None
    """URL of the video, an MP4."""
    audio_url: str | None = None
    """URL of the audio, an MP3."""
    image_url: str | None = None
    """URL of the cover image."""
    image_large_url: str | None = None
    """URL of the larger cover image."""
    major_model_version: str | None = None
    """Version of the model that generated it: `"v4"`."""
    model_name: str | None = None
    """Name of that model: `"chirp-v4"`."""
    metadata: ClipMetadata | None = None
    """How it was generated."""
    is_liked: bool | None = None
    """Whether the account likes it."""
    user_id: str | None = None
    """Id of its account: `"21de6d0f-398c-467c-9957-8fa9065f3ca6"`."""
    display_name: str | None = None
    """Display name of the account: `"SensoryRecorders4685"`."""
    handle: str | None = None
    """Handle of the account: `"sensoryrecorders4685"`."""
    is_handle_updated: bool | None = None
    """Whether the account changed its handle."""
    avatar_image_url: str | None = None
    """URL of the account's picture."""
    is_trashed: bool | None = None
    """Whether it is in the trash."""
    created_at: datetime | None = None
    """When it was generated, with a time zone: `2024-12-23T10:34:30.144Z`."""
    status: str | None = None
    """Generation status: `"complete"`."""
    title: str | None = None
    """Title: `"noks noko wane"`."""
    play_count: int | None = None
    """Number of plays."""
    upvote_count: int | None = None
    """Number of upvotes."""
    is_public: bool | None = None
    """Whether everybody can see it."""
    entity_type: str | None = None
    """Kind of object: `"song_schema"`. Not in the contract, as the three below; some gateways send them."""
    flag_count: int | None = None
    """Number of reports."""
    display_tags: str | None = None
    """Style as it is shown, separated by commas: `"folk, spoken-word"`."""
    allow_comments: bool | None = None
    """Whether others may comment on it."""
    extra: Extra = attrs.field(default=NO_EXTRA, converter=_read_only, hash=False)
    """Members that the fields cannot hold, as received."""


@attrs.frozen(kw_only=True, repr=False)
class PersonaClip(_Model):
    """An entry in a persona's list of clips."""

    clip: Clip | None = None
    """The clip."""
    id: int | None = None
    """Id of this entry, not of the clip: `11288925`."""
    extra: Extra = attrs.field(default=NO_EXTRA, converter=_read_only, hash=False)
    """Members that the fields cannot hold, as received."""


@attrs.frozen(kw_only=True, repr=False)
class Persona(_Model):
    """A reusable voice and style. Pass `id` on as `persona_id` when you generate music.

    Only `id` is always there; any other field may be `None`, and `persona_clips` empty. The `repr` shows only set ones.

    >>> Persona(id="fd213afd", name="Neon", is_public=False)
    Persona(id='fd213afd', name='Neon', is_public=False)
    """

    id: str
    """Persona id: `"fd213afd-ac1c-4822-9802-c1c0ea45e77b"`."""
    name: str | None = None
    """Name."""
    description: str | None = None
    """Its sound, in words."""
    root_clip_id: str | None = None
    """Id of the clip that it was created from."""
    clip: Clip | None = None
    """The clip that it was created from."""
    user_display_name: str | None = None
    """Display name of its account: `"SensoryRecorders4685"`."""
    user_handle: str | None = None
    """Handle of its account: `"sensoryrecorders4685"`."""
    user_image_url: str | None = None
    """URL of its account's picture."""
    persona_clips: tuple[PersonaClip, ...] = ()
    """The clips that belong to it."""
    image_s3_id: str | None = None
    """Id of its picture in the service's store: `"image_54834687"`. Not in the contract, as all fields below; some
    gateways send them."""
    is_public: bool | None = None
    """Whether everybody can see it."""
    is_owned: bool | None = None
    """Whether it belongs to the account of the key."""
    is_trashed: bool | None = None
    """Whether it is in the trash."""
    clip_count: int | None = None
    """Number of its clips: `1`."""
    persona_type: str | None = None
    """Kind: `"vox"` for a persona that was created from a voice."""
    vox_audio_id: str | None = None
    """Id of the voice that it was created from: `"9e196fa1-20f3-43c1-8066-06a2a6b6bea9"`."""
    vocal_start_s: float | None = None
    """Start of the voice in its clip, in seconds: `0`."""
    vocal_end_s: float | None = None
    """End of the voice in its clip, in seconds: `23.24`."""
    user_input_styles: str | None = None
    """Style in its user's words: `"pop"`."""
    extra: Extra = attrs.field(default=NO_EXTRA, converter=_read_only, hash=False)
    """Members that the fields cannot hold, as received: those without a field, and those whose value has another type
    than the field. Takes no part in the hash."""

    def music_fields(self) -> dict[str, str]:
        """Return the members of a music request that sings with this persona, to be merged into its body.

        `artist_clip_id` is left out if `root_clip_id` names no clip: if it is missing, empty, or the zero UUID that
        personas made from a voice have. No model is chosen: which model sings with a persona depends on the gateway.

        >>> Persona(id="fd213afd").music_fields()
        {'task': 'artist_consistency', 'persona_id': 'fd213afd'}
        """
        fields = {"task": "artist_consistency", "persona_id": self.id}
        if self.root_clip_id and self.root_clip_id != "00000000-0000-0000-0000-000000000000":
            fields["artist_clip_id"] = self.root_clip_id
        return fields


def _request_extra(members: Mapping[str, object]) -> Extra:
    return NO_EXTRA if members is NO_EXTRA else Extra(_checks.extra_members(members))


def _root_clip_alone(request: "CreatePersonaRequest") -> tuple[str, ...]:
    return (request.root_clip_id,)


@attrs.frozen(kw_only=True)
class CreatePersonaRequest:
    """A request to create a persona. Its values are checked when it is made.

    Raises `InvalidRequestError`, which names the field, for blank text, text that cannot be encoded as UTF-8, no clips,
    an `is_public` that is not a `bool`, or an `extra` that JSON cannot express; and for an id with anything but ASCII
    letters, digits, `-`, `_`, `.` and `~`, or an id that a spreadsheet has changed, such as `nan` or `54834687.0`.

    >>> CreatePersonaRequest(
    ...     root_clip_id="54834687", name="Neon", description="Night drive"
    ... ).clips
    ('54834687',)
    >>> CreatePersonaRequest(root_clip_id="54834687", name="", description="Night drive")
    Traceback (most recent call last):
    suno_persona.errors.InvalidRequestError: name must be non-empty text; got '' (str)
    """

    root_clip_id: str
    """Id of the clip to create the persona from. The clip must exist, must not have been uploaded, and must belong to
    the key's account (the contract)."""

    name: str
    """Name of the persona."""

    description: str
    """Its sound, in words."""

    clips: tuple[str, ...] = attrs.field(
        default=attrs.Factory(_root_clip_alone, takes_self=True), converter=_checks.clips
    )
    """Ids of the clips that belong to the persona, at least one; defaults to `root_clip_id` alone."""

    is_public: bool = False
    """Whether to publish the persona, so that everybody can see it. Private by default."""

    extra: Extra = attrs.field(default=NO_EXTRA, converter=_request_extra, hash=False)
    """More members of the body, for gateways that take them: `{"persona_type": "vox", "vocal_start_s": 0}`. A read-only
    mapping of names to JSON values; none may have the name of another field. Takes no part in the hash."""

    def __attrs_post_init__(self) -> None:
        _checks.members(self.root_clip_id, self.name, self.description, self.clips, self.is_public)


@attrs.frozen
class Outcome:
    """How one request of a batch ended: with a persona, or with the error that `create` would have raised."""

    index: int
    """Index of the request in the batch, from 0."""

    request: CreatePersonaRequest
    """The request, as it was passed."""

    persona: Persona | None = None
    """The persona; `None` if there is an error."""

    error: PersonaError | None = None
    """The error; `None` if there is a persona."""

    key: str | None = None
    """The request's key in the journal; `None` without a journal."""

    request_id: str | None = None
    """The service's id of the exchange, also of a success: its support asks for it. `None` if it sent none."""

    recorded: bool = False
    """Whether a journal had it before this run."""

    def __attrs_post_init__(self) -> None:
        if (self.persona is None) is (self.error is None):
            raise UsageError(message="an Outcome must have either a persona or an error; got both or neither")

    def result(self) -> Persona:
        """Return the persona, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.persona is not None  # noqa: S101 - for type checkers
        return self.persona
