from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from joker.core.errors import ConfigError, ModelFolderError
from joker.core.sampling import Sampling
from joker.jobs.celery_redis import CeleryRedisQueue
from joker.jobs.in_process import InProcessQueue
from joker.jobs.job import JokeRequest, State
from joker.settings import open_queue, read_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER", "BROKER_PASSWORD", "SECRETS_DIR"):
        monkeypatch.delenv(f"JOKER_{name}", raising=False)


def test_every_field_can_be_set_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_BROKER", "redis://:secret@queue:6379/0")
    monkeypatch.setenv("JOKER_MAX_QUEUE_SIZE", "7")
    monkeypatch.setenv("JOKER_CORS_ORIGINS", "https://a.example, https://b.example,")
    monkeypatch.setenv("JOKER_API_KEYS", "one,two")
    settings = read_settings()
    assert settings.broker == "redis://:secret@queue:6379/0"
    assert settings.max_queue_size == 7
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_PORT", "8001")
    assert read_settings(port=8002).port == 8002
    assert read_settings(port=None).port == 8001


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER", "MODEL", "RATE_LIMIT", "API_KEYS"):
        monkeypatch.setenv(f"JOKER_{name}", "")
    settings = read_settings()
    assert (settings.broker, settings.model, settings.rate_limit) == (None, None, None)
    assert settings.api_keys == ()


def test_secrets_are_read_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "joker_broker_password").write_text("p@ss/w:rd\n", encoding="utf-8")
    (tmp_path / "joker_api_keys").write_text("one,two\n", encoding="utf-8")
    (tmp_path / "another_program").write_text("its own", encoding="utf-8")
    monkeypatch.setenv("JOKER_SECRETS_DIR", str(tmp_path))
    settings = read_settings(broker="redis://queue:6379/0")
    assert settings.broker == "redis://:p%40ss%2Fw%3Ard@queue:6379/0"
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]
    assert "ss" not in repr(settings.broker_password)
    monkeypatch.setenv("JOKER_API_KEYS", "three")
    assert [key.get_secret_value() for key in read_settings().api_keys] == ["three"]


def test_a_folder_of_secrets_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_SECRETS_DIR", "nowhere")
    with pytest.raises(ConfigError, match=r"JOKER_SECRETS_DIR.*nowhere"):
        read_settings()


def test_two_passwords_for_one_broker_are_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"JOKER_BROKER.*password already") as raised:
        read_settings(broker="redis://:first@queue", broker_password="second")
    assert "first" not in str(raised.value)
    assert "second" not in str(raised.value)


def test_a_password_without_a_broker_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOKER_BROKER_PASSWORD", "secret")
    assert read_settings().broker is None
    monkeypatch.setenv("JOKER_BROKER_PASSWORD", "")
    assert read_settings(broker="redis://queue").broker == "redis://queue"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("broker", "amqp://:secret@queue"),
        ("broker", "redis://:secret@queue:port"),
        ("max_queue_size", "0"),
        ("deadline_seconds", "inf"),
        ("result_ttl_seconds", "nan"),
        ("workers", "secret"),
        ("port", "70000"),
    ],
)
def test_an_unusable_value_is_refused_by_name_and_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"JOKER_{name.upper()}", value)
    with pytest.raises(ConfigError, match=f"JOKER_{name.upper()}") as raised:
        read_settings()
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_setting_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="colour"):
        read_settings(colour="red")


def test_a_broker_decides_which_queue_is_opened() -> None:
    async def scenario() -> None:
        queue = open_queue(read_settings(broker="redis://127.0.0.1:1/0"))
        assert isinstance(queue, CeleryRedisQueue)
        await queue.close()

    asyncio.run(scenario())


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="nowhere"):
        open_queue(read_settings(model=tmp_path / "nowhere"))


@pytest.mark.integration
def test_the_bundled_model_tells_in_this_process() -> None:
    async def scenario() -> None:
        queue = open_queue(read_settings(workers=2))
        assert isinstance(queue, InProcessQueue)
        request = JokeRequest("Why do", 2, Sampling(), 7, safe=False, candidates=1)
        jobs = [await queue.submit(request) for _ in range(3)]
        told = [await queue.wait(job.id, 50) for job in jobs]
        assert {job.state for job in told} == {State.SUCCESS}
        assert len({job.jokes for job in told}) == 1
        assert all(joke.question.startswith("Why do") for joke in told[0].jokes)
        await queue.close()

    asyncio.run(scenario())
