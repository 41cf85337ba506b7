from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path

import pytest
from typer.main import get_command

from joker.cli import app
from joker.core.errors import ConfigError
from joker.engines import RemoteServer
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.in_process import InProcessQueue
from joker.settings import OPTIONS, Settings, load_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER", "BROKER_PASSWORD", "SECRETS_DIR"):
        monkeypatch.delenv(f"JOKER_{name}", raising=False)


def test_every_field_can_be_set_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_BROKER", "redis://:secret@queue:6379/0")
    monkeypatch.setenv("JOKER_MAX_QUEUE_SIZE", "7")
    monkeypatch.setenv("JOKER_CORS_ORIGINS", "https://a.example, https://b.example,")
    monkeypatch.setenv("JOKER_API_KEYS", "one,two")
    settings = load_settings()
    assert settings.broker == "redis://:secret@queue:6379/0"
    assert settings.max_queue_size == 7
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]


def test_a_remote_engine_is_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().server is None
    monkeypatch.setenv("JOKER_ENGINE_URL", "http://gpu:8000/v1")
    assert load_settings().server == RemoteServer("http://gpu:8000/v1")
    monkeypatch.setenv("JOKER_ENGINE_API_KEY", "the key")
    monkeypatch.setenv("JOKER_ENGINE_MODEL", "joker")
    settings = load_settings()
    assert settings.server == RemoteServer("http://gpu:8000/v1", "the key", "joker")
    assert "the key" not in repr(settings) + repr(settings.server)


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_PORT", "8001")
    assert load_settings(port=8002).port == 8002
    assert load_settings(port=None).port == 8001


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER", "MODEL", "NUM_THREADS", "RATE_LIMIT", "API_KEYS"):
        monkeypatch.setenv(f"JOKER_{name}", "")
    settings = load_settings()
    assert (settings.broker, settings.model, settings.rate_limit) == (None, None, None)
    assert settings.num_threads is None
    assert settings.api_keys == ()


def test_secrets_are_read_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "joker_broker_password").write_text("p@ss/w:rd\n", encoding="utf-8")
    (tmp_path / "joker_api_keys").write_text("one,two\n", encoding="utf-8")
    (tmp_path / "another_program").write_text("its own", encoding="utf-8")
    monkeypatch.setenv("JOKER_SECRETS_DIR", str(tmp_path))
    settings = load_settings(broker="redis://queue:6379/0")
    assert settings.broker == "redis://:p%40ss%2Fw%3Ard@queue:6379/0"
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]
    assert "ss" not in repr(settings.broker_password)
    monkeypatch.setenv("JOKER_API_KEYS", "three")
    assert [key.get_secret_value() for key in load_settings().api_keys] == ["three"]


def test_a_folder_of_secrets_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_SECRETS_DIR", "nowhere")
    with pytest.raises(ConfigError, match=r"JOKER_SECRETS_DIR.*nowhere"):
        load_settings()


@pytest.mark.parametrize(
    ("url", "with_password"),
    [
        ("redis://queue:6379/0", "redis://:p%40ss@queue:6379/0"),
        ("redis://teller@queue:6379/0", "redis://teller:p%40ss@queue:6379/0"),
        ("rediss://teller@queue/1", "rediss://teller:p%40ss@queue/1"),
        ("rediss://t%40x@[::1]:6380?a=b", "rediss://t%40x:p%40ss@[::1]:6380?a=b"),
    ],
)
def test_a_password_is_put_behind_the_users_name(url: str, with_password: str) -> None:
    assert load_settings(broker=url, broker_password="p@ss").broker == with_password


def test_sentinels_have_a_password_of_their_own() -> None:
    url = "sentinel://one:26379,two:26380/1?master=jokes"
    settings = load_settings(
        broker=url, broker_password="p@ss", broker_sentinel_password="guard&key"
    )
    expected = "sentinel://:p%40ss@one:26379,two:26380/1?master=jokes&sentinel_password=guard%26key"
    assert settings.broker == expected


def test_user_and_password_may_both_stand_in_the_url() -> None:
    url = "rediss://teller:secret@queue:6380/0"
    assert load_settings(broker=url).broker == url


@pytest.mark.parametrize("url", ["redis://:first@queue", "redis://teller:first@queue"])
def test_two_passwords_for_one_broker_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"JOKER_BROKER\).*password already") as raised:
        load_settings(broker=url, broker_password="second")
    assert "first" not in str(raised.value)
    assert "second" not in str(raised.value)


def test_a_password_without_a_broker_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_BROKER_PASSWORD", "secret")
    assert load_settings().broker is None
    monkeypatch.setenv("JOKER_BROKER_PASSWORD", "")
    assert load_settings(broker="redis://queue").broker == "redis://queue"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker", "amqp://:secret@queue"),
        ("broker", "redis://:secret@queue:port"),
        ("broker", "sentinel://:secret@queue:26379/0"),
        ("broker", "sentinel://:secret@queue:port/0?master=jokes"),
        ("broker", "sentinel://:secret@queue/zero?master=jokes"),
        ("max_queue_size", "0"),
        ("num_threads", "0"),
        ("deadline_seconds", "inf"),
        ("result_ttl_seconds", "nan"),
        ("concurrency", "secret"),
        ("port", "70000"),
    ],
)
def test_an_unusable_value_is_refused_by_name_and_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"JOKER_{name.upper()}", value)
    with pytest.raises(ConfigError, match=f"JOKER_{name.upper()}") as raised:
        load_settings()
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_error_names_the_option_and_the_variable() -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(port=70000)
    assert str(raised.value) == "--port (JOKER_PORT) must be less than or equal to 65535"
    with pytest.raises(ConfigError) as raised:
        load_settings(max_attempts=0)
    assert str(raised.value) == "--max-attempts (JOKER_MAX_ATTEMPTS) must be greater than 0"
    with pytest.raises(ConfigError) as raised:
        load_settings(max_count=0)
    assert str(raised.value) == "JOKER_MAX_COUNT must be greater than 0"
    with pytest.raises(ConfigError) as raised:
        load_settings(max_count="many")
    assert str(raised.value) == "JOKER_MAX_COUNT must be a whole number"


def test_the_options_that_errors_name_are_those_of_the_commands() -> None:
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]
    names = {parameter.name for command in commands for parameter in command.params}
    offered = names & set(Settings.model_fields) - {"max_new_tokens"}
    assert offered == set(OPTIONS)


def test_a_setting_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="COLOUR"):
        load_settings(colour="red")


def test_unknown_variables_are_warned_of_once_with_the_closest_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JOKER_CANDIDATE", "4")
    monkeypatch.setenv("JOKER_SECRET_DIR", "4")
    monkeypatch.setenv("JOKER_QQQ", "4")
    monkeypatch.setenv("JOKER_CANDIDATES", "4")
    monkeypatch.setenv("JOKE", "4")
    with caplog.at_level(logging.WARNING, logger="joker.settings"):
        assert load_settings().candidates == 4
        load_settings()
    theirs = [
        line for line in caplog.messages if re.match("JOKER_(CANDIDATE|SECRET_DIR|QQQ) ", line)
    ]
    assert sorted(theirs) == [
        "JOKER_CANDIDATE is not a setting; did you mean JOKER_CANDIDATES?",
        "JOKER_QQQ is not a setting; docs/settings.md lists them all",
        "JOKER_SECRET_DIR is not a setting; did you mean JOKER_SECRETS_DIR?",
    ]
    assert not [line for line in caplog.messages if line.startswith(("JOKER_CANDIDATES", "JOKE "))]


def test_finished_jobs_are_kept_for_the_minutes_that_the_documentation_says() -> None:
    seconds = Settings.model_fields["result_ttl_seconds"].default
    for queue in (InProcessQueue, CeleryRedisQueue):
        assert inspect.signature(queue).parameters["result_ttl_seconds"].default == seconds
    kept = f"{seconds / 60:g} minutes"
    for path in ("docs/api.md", "docs/queue.md", "docs/explanation/sizing.md", "deploy/README.md"):
        assert kept in (Path(__file__).parents[1] / path).read_text(encoding="utf-8")
