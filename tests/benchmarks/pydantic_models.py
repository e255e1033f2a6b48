"""The contract's response as pydantic models, as a generated SDK has them: every field optional, extra ones allowed."""

from datetime import datetime

from openai import BaseModel  # pydantic's name for it, and the only one that openai's client accepts


class ClipMetadata(BaseModel):
    tags: str | None = None
    prompt: str | None = None
    type: str | None = None
    duration: float | None = None
    refund_credits: bool | None = None
    stream: bool | None = None


class Clip(BaseModel):
    id: str | None = None
    video_url: str | None = None
    audio_url: str | None = None
    image_url: str | None = None
    image_large_url: str | None = None
    major_model_version: str | None = None
    model_name: str | None = None
    metadata: ClipMetadata | None = None
    is_liked: bool | None = None
    user_id: str | None = None
    display_name: str | None = None
    handle: str | None = None
    is_handle_updated: bool | None = None
    avatar_image_url: str | None = None
    is_trashed: bool | None = None
    created_at: datetime | None = None
    status: str | None = None
    title: str | None = None
    play_count: int | None = None
    upvote_count: int | None = None
    is_public: bool | None = None


class PersonaClip(BaseModel):
    clip: Clip | None = None
    id: int | None = None


class Persona(BaseModel):
    id: str
    name: str | None = None
    description: str | None = None
    root_clip_id: str | None = None
    clip: Clip | None = None
    user_display_name: str | None = None
    user_handle: str | None = None
    user_image_url: str | None = None
    persona_clips: list[PersonaClip] | None = None
