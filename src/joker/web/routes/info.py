"""``/info``: what this server is and what it allows."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from joker.version import __version__
from joker.web.dependencies import TheSettings
from joker.web.schemas import JokeOptions

router = APIRouter(tags=["operation"])


class Limits(BaseModel):
    """What a client may ask for."""

    jokes: int = Field(description="Jokes in one request.")
    candidates: int = Field(description="Candidates of each joke.")
    new_tokens: int = Field(description="Tokens behind the prompt.")
    prompt_characters: int = Field(description="Characters of a prompt.")
    body_bytes: int = Field(description="Bytes of a body.")
    rate: str | None = Field(description="Jokes for each client in a time; null: any number.")
    wait_seconds: int = Field(description="Longest `Prefer: wait`.")
    deadline_seconds: float = Field(description="Seconds until a job fails that is not told.")
    result_ttl_seconds: float = Field(description="Seconds that a final job can be asked for.")


class Info(BaseModel):
    """What this server is."""

    name: str = "GPT-2 the Joker"
    version: str = __version__
    limits: Limits
    defaults: JokeOptions = Field(description="What holds where a parameter is missing.")


@router.get("/info", summary="What this server is and allows")
async def info(settings: TheSettings) -> Info:
    """Return version, limits and defaults."""
    return Info(
        limits=Limits(
            jokes=settings.max_count,
            candidates=settings.max_candidates,
            new_tokens=settings.max_new_tokens,
            prompt_characters=settings.max_prompt_characters,
            body_bytes=settings.max_body_bytes,
            rate=settings.rate_limit,
            wait_seconds=settings.max_wait_seconds,
            deadline_seconds=settings.deadline_seconds,
            result_ttl_seconds=settings.result_ttl_seconds,
        ),
        defaults=JokeOptions(candidates=settings.candidates),
    )
