"""Programs that people use with OpenAI's API, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import SecretStr

pytestmark = pytest.mark.integration

Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture(scope="module")
def address(serve: Serve) -> Iterator[str]:
    """Return the base URL of a server that asks for a key."""
    with serve(api_keys="sesame") as found:
        yield f"{found}/v1"


def test_langchain_chats(address: str) -> None:
    model = ChatOpenAI(model="joker", base_url=address, api_key=SecretStr("sesame"), max_retries=0)
    told = model.invoke([("system", "You are funny."), ("user", "Why do cats")])
    assert str(told.content).startswith("Why do cats number")
    assert told.usage_metadata is not None
    assert told.usage_metadata["total_tokens"] == 12
    streamed = "".join(str(chunk.content) for chunk in model.stream("Tell me a joke"))
    assert streamed.startswith("Why did the kettle number")


def test_langchain_completes(address: str) -> None:
    model = OpenAI(model="joker", base_url=address, api_key=SecretStr("sesame"), max_retries=0)
    assert model.invoke("Why do cats").startswith("Why do cats number")
    told = model.generate(["Why do cats", "Why do dogs"], n=1).generations
    assert [one.text.partition(" number")[0] for (one,) in told] == ["Why do cats", "Why do dogs"]


def test_langchain_completes_a_batch_of_its_own_size(address: str) -> None:
    model = OpenAI(model="joker", base_url=address, api_key=SecretStr("sesame"), max_retries=0)
    prompts = [f"Why do {number} cats" for number in range(model.batch_size + 1)]
    told = model.generate(prompts).generations
    assert [one.text.partition(" number")[0] for (one,) in told] == prompts


@pytest.mark.parametrize("options", [(), ("--no-stream",)])
def test_llm_is_told_jokes_by_a_model_of_its_configuration(
    address: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    model = {"model_id": "joker", "model_name": "joker", "api_base": address}
    listed = [model | {"api_key_name": "joker"}]
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(listed))  # JSON is YAML, too
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "joker", "--key", "sesame", *options, "Why do cats"],
        env=os.environ | {"LLM_USER_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    question, answer = done.stdout.splitlines()
    assert question.startswith("Why do cats number")
    assert answer.startswith("It was told with seed")
