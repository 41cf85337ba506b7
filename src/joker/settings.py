"""Settings, from environment variables and secret files.

The setting ``broker`` is read from ``JOKER_BROKER``, or from a file ``joker_broker`` in the folder
``JOKER_SECRETS_DIR``. Command-line options override environment variables, which override files.
"""

from __future__ import annotations

import logging
import os
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args
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
from joker.core.record import plain_message
from joker.engines import EngineKind, RemoteServer
from joker.generation.request import DEFAULT_CANDIDATES, DEFAULT_MAX_ATTEMPTS
from joker.jobs.connection import Sentinels

OPTIONS = (
    *("model", "engine", "engine_url", "engine_api_key", "engine_model", "reproducible"),
    *("candidates", "max_attempts"),
    *("broker", "database", "concurrency", "host", "port"),
)
"""Settings that are also command-line options."""

_PREFIX = "JOKER_"
_SECRETS_DIR = "JOKER_SECRETS_DIR"

_log = logging.getLogger(__name__)

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """All settings; the defaults work on one machine."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    model: Path | None = Field(None, description="Model folder; by default the bundled model.")
    engine: EngineKind | None = Field(
        None,
        description="What runs the model: openvino, on this CPU; remote, the server at engine_url; "
        "or stub, a few built-in jokes without a model. By default remote if engine_url is set, "
        "otherwise openvino.",
    )
    engine_url: str | None = Field(
        None,
        description="Base URL of a server with OpenAI's completions API and log-probabilities, "
        "such as vLLM's http://host:8000/v1.",
    )
    engine_api_key: SecretStr | None = Field(
        None, description="API key for the server at engine_url."
    )
    engine_model: str | None = Field(
        None, description="The model's name at engine_url; by default the first one it lists."
    )
    reproducible: bool = Field(
        False,
        description="Give the same jokes for the same seed, regardless of other requests; costs up "
        "to half the speed, depending on the CPU. Without it, seeds are best effort.",
    )
    num_threads: PositiveInt | None = Field(
        None,
        description="CPU threads of the OpenVINO engine; by default the container's CPU quota "
        "rounded up, or the number of cores if there is no quota.",
    )
    candidates: PositiveInt = Field(
        DEFAULT_CANDIDATES,
        description="Drafts per joke; the one that the model ranks highest is told.",
    )
    max_attempts: PositiveInt = Field(
        DEFAULT_MAX_ATTEMPTS, description="Maximum number of attempts at each joke."
    )
    moderation_list: Path | None = Field(
        None,
        description="Moderation list that replaces the built-in list and classifier.",
    )

    broker_password: SecretStr | None = Field(
        None, description="Password of the broker, for a URL without one."
    )
    broker_sentinel_password: SecretStr | None = Field(
        None, description="Password of the broker's Sentinels, for a URL without one."
    )
    broker: str | None = Field(
        None,
        repr=False,
        description="Redis URL of the job queue, such as redis://localhost:6379/0, or "
        "sentinel://host:26379,host2:26379/0?master=mymaster; by default jobs run in the server's "
        "own process.",
    )
    database: str | None = Field(
        None,
        repr=False,
        description="Where jokes and votes are stored, as postgresql://user:password@host/name or "
        "sqlite:///path; by default a SQLite file in the user's data folder. sqlite:// keeps them "
        "in the memory of one server process only.",
    )
    keep_prompts: bool = Field(
        False, description="Store the prompt of each joke too; by default only the joke is stored."
    )
    store_max_age_days: _Positive | None = Field(
        None,
        description="Age in days at which jokes and their votes are deleted; empty keeps all.",
    )
    store_max_jokes: PositiveInt | None = Field(
        None,
        description="Maximum number of stored jokes; beyond it the oldest are deleted, those "
        "without votes first. By default a million, or ten thousand in memory.",
    )
    pool_size: NonNegativeInt = Field(
        50,
        description="Number of unheard jokes that an idle server keeps ready in the pool; 0 "
        "disables the pool.",
    )
    concurrency: PositiveInt = Field(
        64,
        description="Maximum number of jobs that a process runs at the same time. No further job "
        "starts while the running ones may need 16,384 tokens, two of the engine's batches: for "
        "example, 8 jobs of 16 drafts with up to 128 tokens each, prompts included.",
    )
    max_queue_size: PositiveInt = Field(
        64, description="Maximum number of waiting jobs; further requests get status 503."
    )
    deadline_seconds: _Positive = Field(
        60, description="Time limit of a job in seconds, including the time it waits."
    )
    result_ttl_seconds: _Positive = Field(
        900, description="How long a finished job is kept, in seconds."
    )
    lease_seconds: _Positive = Field(
        10, description="Seconds after a worker's last heartbeat before its jobs are requeued."
    )
    heartbeat: Path | None = Field(
        None, description="File that a worker touches every few seconds, for liveness probes."
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of a worker's Prometheus metrics; empty disables them.",
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 means all addresses.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated origins of pages that may call the API; * allows all.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Comma-separated API keys; empty disables authentication."
    )
    rate_limit: str | None = Field(
        "60/minute",
        description="Jokes that each client may request, such as 60/minute; empty disables the "
        "limit.",
    )
    max_prompt_characters: PositiveInt = Field(
        300, description="Maximum length of a prompt in characters."
    )
    max_body_bytes: PositiveInt = Field(
        16_384, description="Maximum size of a request body in bytes."
    )
    max_count: PositiveInt = Field(10, description="Maximum number of jokes per prompt.")
    max_candidates: PositiveInt = Field(64, description="Maximum number of drafts per joke.")
    max_new_tokens: PositiveInt = Field(200, description="Maximum number of tokens per joke.")
    max_wait_seconds: NonNegativeInt = Field(
        30, description="Maximum time in seconds that 'Prefer: wait' may ask for."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any, info: ValidationInfo) -> Any:
        """Treat an empty variable as None where None is allowed."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        return None if value == "" and NoneType in get_args(annotation) else value

    @field_validator("broker")
    @classmethod
    def _complete_broker(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Check the broker's URL and add its passwords."""
        if value is None:
            return None
        if not value.startswith(("redis://", "rediss://", "sentinel://")):
            raise ValueError("must be a Redis URL such as redis://localhost:6379/0")
        if Sentinels.parse(value) is None:
            try:
                _ = urlsplit(value).port
            except ValueError:
                raise ValueError("must have a port from 0 to 65535") from None
        if password := _quoted(info.data.get("broker_password")):
            parts = urlsplit(value)
            user, _, address = parts.netloc.rpartition("@")
            if ":" in user:
                raise ValueError(
                    "contains a password already; remove it there, or unset JOKER_BROKER_PASSWORD"
                )
            value = parts._replace(netloc=f"{user}:{password}@{address}").geturl()
        password = _quoted(info.data.get("broker_sentinel_password"))
        if password and value.startswith("sentinel://"):
            value += f"&sentinel_password={password}"
        return value

    @property
    def server(self) -> RemoteServer | None:
        """The remote engine's server; None without ``engine_url``."""
        if self.engine_url is None:
            return None
        key = self.engine_api_key.get_secret_value() if self.engine_api_key else None
        return RemoteServer(self.engine_url, key, self.engine_model)

    @field_validator("cors_origins", "api_keys", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value


def _quoted(secret: SecretStr | None) -> str:
    return quote(secret.get_secret_value(), safe="") if secret else ""


def load_settings(**overrides: Any) -> Settings:
    """Read the environment and secret files; overrides other than None take precedence.

    Logs a warning, once, for each ``JOKER_`` variable that is not a setting.

    Raises:
        ConfigError: If a value is invalid; the message names the setting but not the value.
    """
    for variable in os.environ:
        if variable.startswith(_PREFIX):
            _warn_unless_known(variable)
    values: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    secrets_dir = os.environ.get(_SECRETS_DIR) or None
    if secrets_dir and not Path(secrets_dir).is_dir():
        raise ConfigError(
            f"{_SECRETS_DIR} must be a folder of secret files; {secrets_dir} is not one"
        )
    try:
        return Settings(**values | {"_secrets_dir": secrets_dir})
    except ValidationError as error:
        first = error.errors()[0]
        setting = setting_title(str(first["loc"][0]))
        raise ConfigError(f"{setting} {plain_message(first['msg'])}") from error


def setting_title(name: str) -> str:
    """Return a setting's environment variable, with its command-line option if it has one."""
    variable = f"{_PREFIX}{name.upper()}"
    option = f"--{name.replace('_', '-')}"
    return f"{option} ({variable})" if name in OPTIONS else variable


@cache
def _warn_unless_known(variable: str) -> None:
    known = [name.upper() for name in Settings.model_fields]
    known.append(_SECRETS_DIR.removeprefix(_PREFIX))
    name = variable.removeprefix(_PREFIX)
    if name in known:
        return
    matches = get_close_matches(name, known, n=1)
    hint = f"did you mean {_PREFIX}{matches[0]}?" if matches else "docs/settings.md lists them all"
    _log.warning("%s is not a setting; %s", variable, hint)
