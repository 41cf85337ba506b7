"""Settings of the servers, and the one place that puts their parts together.

The only reader of environment variables: each field is ``JOKER_`` and its name in
capitals, such as ``JOKER_BROKER``, or a file of that name in small letters in the folder
``JOKER_SECRETS_DIR``. The entrances `joker.web`, `joker.worker` and `joker.cli` call it; an
option given on the command line wins over the environment, the environment over a file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from joker.core.errors import ConfigError
from joker.engines import EngineKind
from joker.generation.teller import DEFAULT_CANDIDATES, DEFAULT_TRIES

if TYPE_CHECKING:
    from joker.jobs.queue import JobQueue, Work

_PREFIX = "JOKER_"
_SECRETS_DIR = "JOKER_SECRETS_DIR"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """What the servers run with; every field has a default that works on one machine."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    broker_password: SecretStr | None = Field(
        None, description="Password of the broker, where its address holds none."
    )
    broker: str | None = Field(
        None,
        repr=False,
        description="Redis that parts work among workers, as redis://host:port/0; "
        "by default jokes are told in the server's own process.",
    )
    model: Path | None = Field(
        None, description="Model folder; by default the one that comes with the package."
    )
    engine: EngineKind | None = Field(
        None,
        description="What runs the model: openvino, transformers, or stub, which tells a few "
        "jokes by heart; by default OpenVINO where the folder has a graph.",
    )
    workers: PositiveInt = Field(8, description="Jobs at once in one process.")
    max_queue_size: PositiveInt = Field(64, description="Most jobs that wait; more are refused.")
    deadline_seconds: Seconds = Field(60, description="A job not told by then fails.")
    result_ttl_seconds: Seconds = Field(3600, description="How long a finished job is kept.")
    lease_seconds: Seconds = Field(
        10, description="A worker silent for so long has lost its jobs to others."
    )
    heartbeat: Path | None = Field(
        None, description="File that a worker touches every few seconds, for probes."
    )
    tries: PositiveInt = Field(
        DEFAULT_TRIES, description="Most tries for each joke that comes out unfinished."
    )
    candidates: PositiveInt = Field(
        DEFAULT_CANDIDATES, description="Candidates of each joke; the best is told."
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port of a worker's figures; nothing: it shows none."
    )

    moderation_list: Path | None = Field(
        None,
        description="Moderation list, in place of the package's own and its classifier.",
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every one.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Sites whose pages may call the API, comma-separated; * allows every site."
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Comma-separated API keys; empty disables authentication."
    )
    rate_limit: str | None = Field(
        "60/minute", description="Jokes a client may ask for, such as 60/minute; nothing: no limit."
    )
    max_prompt_characters: PositiveInt = Field(300, description="Longest prompt.")
    max_body_bytes: PositiveInt = Field(16_384, description="Longest request body.")
    max_count: PositiveInt = Field(10, description="Most jokes of one request.")
    max_candidates: PositiveInt = Field(32, description="Most candidates of each joke.")
    max_new_tokens: PositiveInt = Field(200, description="Most tokens of each joke.")
    max_wait_seconds: NonNegativeInt = Field(30, description="Longest 'Prefer: wait'.")

    @field_validator(
        *("broker_password", "broker", "model", "engine", "moderation_list"),
        *("heartbeat", "metrics_port", "rate_limit"),
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        """Let ``JOKER_BROKER=`` in a compose file mean that there is none."""
        return value or None

    @field_validator("broker")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://")):
            raise ValueError("must be a Redis address such as redis://localhost:6379/0")
        try:
            _ = value and urlsplit(value).port
        except ValueError:
            raise ValueError("the port must be a number from 0 to 65535") from None
        return value

    @field_validator("broker")
    @classmethod
    def _with_password(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Put the password into the address, which is all that anybody else asks for."""
        password: SecretStr | None = info.data.get("broker_password")
        if value is None or password is None:
            return value
        parts = urlsplit(value)
        if "@" in parts.netloc:
            raise ValueError("holds a password already; leave it out, or the one beside it")
        given = quote(password.get_secret_value(), safe="")
        return parts._replace(netloc=f":{given}@{parts.netloc}").geturl()

    @field_validator("cors_origins", "api_keys", mode="before")
    @classmethod
    def _part_by_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


def read_settings(**given: Any) -> Settings:
    """Read the environment and files of secrets; what is given and not None wins over them.

    Raises:
        ConfigError: If a value cannot be used; the setting is named, the value is not.
    """
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    secrets = os.environ.get(_SECRETS_DIR) or None
    if secrets and not Path(secrets).is_dir():
        raise ConfigError(f"{_SECRETS_DIR} must be a folder of files; {secrets} is none")
    try:
        return Settings(**(chosen | {"_secrets_dir": secrets}))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"setting {name!r} ({_PREFIX}{name.upper()} in the environment): "
            f"{reason[:1].lower()}{reason[1:]}"
        ) from error


def open_work(settings: Settings) -> Work:
    """Load the model; return what tells jokes with it, for any number of threads.

    Raises:
        ModelFolderError: If the model folder cannot be used.
        InputError: If the moderation list cannot be read.
    """
    from joker.core.fingerprints import Fingerprints
    from joker.core.model_folder import ModelFolder, bundled_model
    from joker.engines import open_shared_engine
    from joker.generation.moderation import Moderator
    from joker.generation.teller import Teller
    from joker.jobs.handler import TellerWork

    folder = ModelFolder.open(settings.model or bundled_model())
    listed = settings.moderation_list
    moderator = Moderator.from_file(listed) if listed else Moderator.default()
    engine = open_shared_engine(folder, settings.engine)
    teller = Teller(engine, fingerprints=Fingerprints.read(folder.path), moderator=moderator)
    return TellerWork(teller, tries=settings.tries)


def open_queue(settings: Settings) -> JobQueue:
    """Return the queue that the settings ask for: over Redis where there is a broker.

    Raises:
        ModelFolderError: If this process tells the jokes and the model folder cannot be used.
    """
    if settings.broker is not None:
        from joker.jobs.celery_redis import CeleryRedisQueue

        return CeleryRedisQueue(
            settings.broker,
            max_queue_size=settings.max_queue_size,
            deadline_seconds=settings.deadline_seconds,
            result_ttl_seconds=settings.result_ttl_seconds,
        )
    from joker.jobs.in_process import InProcessQueue

    return InProcessQueue(
        open_work(settings),
        workers=settings.workers,
        max_queue_size=settings.max_queue_size,
        deadline_seconds=settings.deadline_seconds,
        result_ttl_seconds=settings.result_ttl_seconds,
    )
