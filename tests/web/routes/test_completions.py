from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import openai
import pytest
from fastapi.testclient import TestClient

from joker.web.routes.completions import CompletionBody

Serve = Callable[..., AbstractContextManager[str]]


@pytest.fixture
def openai_client(serve: Serve, broker: str | None) -> Iterator[openai.OpenAI]:
    """Return the OpenAI client of a running server that asks for a key."""
    with (
        serve(api_keys="sesame", broker=broker) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="sesame", max_retries=0) as client,
    ):
        yield client


@pytest.mark.integration
def test_the_openai_client_gets_jokes(openai_client: openai.OpenAI) -> None:
    completion = openai_client.completions.create(
        model="joker", prompt="Why do cats", n=2, seed=3, max_tokens=40, temperature=0.7, top_p=0.9
    )
    assert [choice.text for choice in completion.choices] == [
        "Why do cats number 3?\nIt was told with seed 3.",
        "Why do cats number 4?\nIt was told with seed 4.",
    ]
    assert {choice.finish_reason for choice in completion.choices} == {"stop"}


@pytest.mark.integration
def test_the_openai_client_streams_joke_by_joke(openai_client: openai.OpenAI) -> None:
    stream = openai_client.completions.create(
        model="joker", prompt="Why", n=2, seed=3, stop=["\n"], stream=True
    )
    told = [(choice.index, choice.text) for chunk in stream for choice in chunk.choices]
    assert told == [(0, "Why number 3?"), (1, "Why number 4?")]


@pytest.mark.integration
def test_the_openai_client_gets_the_tokens_counted(openai_client: openai.OpenAI) -> None:
    usage = openai_client.completions.create(model="joker", prompt="Why", n=2, best_of=6).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 18, 21)


@pytest.mark.integration
def test_the_openai_client_gets_a_streams_tokens_in_its_last_chunk(
    openai_client: openai.OpenAI,
) -> None:
    *chunks, last = openai_client.completions.create(
        model="joker", prompt="Why", n=2, stream=True, stream_options={"include_usage": True}
    )
    assert [len(chunk.choices) for chunk in chunks] == [1, 1]
    assert {chunk.usage for chunk in chunks} == {None}
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 21


@pytest.mark.integration
def test_the_openai_client_hears_what_is_wrong(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="the only one is 'joker'"):
        openai_client.completions.create(model="gpt-9", prompt="Why")
    with pytest.raises(openai.UnprocessableEntityError, match="logprobs"):
        openai_client.completions.create(model="joker", prompt="Why", logprobs=2)
    with pytest.raises(openai.AuthenticationError, match="API key"):
        openai_client.with_options(api_key="wrong").models.list()
    failing = openai_client.completions.create(model="joker", prompt="fail", stream=True)
    with pytest.raises(openai.APIError, match="5 tries"):
        list(failing)


@pytest.mark.integration
def test_the_openai_client_finds_the_model(openai_client: openai.OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == ["joker"]
    assert openai_client.models.retrieve("joker").owned_by == "joker"


@pytest.mark.integration
def test_leaving_a_stream_cancels_its_job(serve: Serve, broker: str | None) -> None:
    import httpx2

    with serve(broker=broker) as address, httpx2.Client(base_url=address, timeout=60) as client:
        body = {"prompt": "hang", "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as response:
            assert response.status_code == 200
        while 'outcome_total{reason="revoked"} 1.0' not in client.get("/metrics").text:
            pass


def test_the_best_of_many_are_candidates() -> None:
    assert CompletionBody(n=2, best_of=7).options.candidates == 3
    assert CompletionBody(n=2).options.candidates is None


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"n": 3, "best_of": 2}, "'best_of' must be at least 'n'"),
        ({"best_of": 2, "candidates": 2}, "give one"),
        ({"best_of": 1000}, "candidates"),
        ({"stream_options": {"include_usage": True}}, "'stream_options' is for streams"),
        ({"stream": True, "stream_options": {"include_usages": True}}, "include_usages"),
    ],
)
def test_what_does_not_fit_together_is_named(
    client: TestClient, body: dict[str, object], named: str
) -> None:
    refused = client.post("/v1/completions", json=body)
    assert refused.status_code == 422
    assert named in refused.json()["detail"]


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("number", "Why "),
        (["told", "number"], "Why "),
        ("", "Why number 1?\nIt was told with seed 1."),
        ("nowhere", "Why number 1?\nIt was told with seed 1."),
    ],
)
def test_the_text_ends_at_the_first_stop(client: TestClient, stop: object, text: str) -> None:
    told = client.post("/v1/completions", json={"prompt": "Why", "seed": 1, "stop": stop})
    assert told.json()["choices"][0]["text"] == text
