import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import openai
import pytest
from fastapi.testclient import TestClient

from joker.core.joke import GeneratedJoke
from joker.settings import load_settings
from joker.web.openai_schemas import ChatBody, CompletionBody, Message

MakeClient = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]


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
    with pytest.raises(openai.APIError, match="5 attempts"):
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
        until = time.monotonic() + 60
        while 'outcome_total{reason="revoked"} 1.0' not in client.get("/metrics").text:
            assert time.monotonic() < until, client.get("/metrics").text


SEVERAL = {"prompt": ["Why", "How"], "n": 2, "seed": 3, "stop": ["\n"]}


FOUR = [(0, "Why number 3?"), (1, "Why number 4?"), (2, "How number 3?"), (3, "How number 4?")]


def test_each_prompt_of_a_list_gets_its_own_jokes(client: TestClient) -> None:
    told = client.post("/v1/completions", json=SEVERAL).json()
    assert [(choice["index"], choice["text"]) for choice in told["choices"]] == FOUR
    assert told["usage"] == {"prompt_tokens": 6, "completion_tokens": 36, "total_tokens": 42}


def test_each_prompt_of_a_list_has_its_own_jokes_in_a_stream(client: TestClient) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    streamed = client.post("/v1/completions", json=SEVERAL | options).text
    *events, done = [part.removeprefix("data: ") for part in streamed.strip().split("\n\n")]
    *chunks, last = map(json.loads, events)
    told = [(choice["index"], choice["text"]) for one in chunks for choice in one["choices"]]
    assert told == FOUR
    assert last["usage"]["total_tokens"] == 42
    assert {chunk["id"] for chunk in chunks} == {last["id"]}
    assert done == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_where_one_of_several_prompts_fails_the_others_are_not_told(
    client: TestClient, *, stream: bool
) -> None:
    body = {"prompt": ["fail", "hang"], "stream": stream}
    assert "5 attempts" in client.post("/v1/completions", json=body).text
    while 'outcome_total{reason="revoked"} 1.0' not in client.get("/metrics").text:
        pass


def test_the_jokes_of_all_prompts_count_towards_the_rate_limit(make_client: MakeClient) -> None:
    with make_client(rate_limit="4/hour", max_count=2) as client:
        assert client.post("/v1/completions", json=SEVERAL).status_code == 200
        assert client.post("/v1/completions", json={"prompt": "Why"}).status_code == 429


@pytest.mark.parametrize(("max_queue_size", "most"), [(64, 20), (2, 2)])
def test_a_request_has_no_more_prompts_than_fit_in_the_queue(
    make_client: MakeClient, max_queue_size: int, most: int
) -> None:
    with make_client(max_queue_size=max_queue_size) as client:
        refused = client.post("/v1/completions", json={"prompt": ["Why"] * (most + 1)})
        document = client.get("/openapi.json").json()
    assert refused.status_code == 422
    assert f"at most {most} prompts" in refused.json()["error"]["message"]
    schema = document["components"]["schemas"]["CompletionBody"]["properties"]["prompt"]
    assert most in [branch.get("maxItems") for branch in schema["anyOf"]]


def test_each_prompt_gets_a_joke_of_the_pool_that_fits(
    make_client: MakeClient, picked: GeneratedJoke
) -> None:
    with make_client(pool_size=1) as client:
        body = {"prompt": ["How do cats", "Why did the lamp"]}
        choices = client.post("/v1/completions", json=body).json()["choices"]
    assert [choice["text"].partition(" number")[0] for choice in choices] == [
        "How do cats",
        str(picked),
    ]


@pytest.mark.parametrize(
    "wish", [{"seed": 1}, {"temperature": 0.7}, {"stop": "!"}, {"candidates": 1}, {"best_of": 2}]
)
def test_who_says_how_a_joke_is_made_has_it_drafted(
    make_client: MakeClient, picked: GeneratedJoke, wish: dict[str, object]
) -> None:
    with make_client(pool_size=1) as client:
        told = client.post("/v1/completions", json={"prompt": "", **wish}).json()
    assert told["choices"][0]["text"] != str(picked)


def test_a_limit_of_tokens_leaves_drafts_room_for_a_joke() -> None:
    settings = load_settings(max_new_tokens=150)

    def drafted(**limit: int) -> int:
        messages = [Message.model_validate({"role": "user", "content": "Why"})]
        body = ChatBody(messages=messages, **limit)
        return body.to_request(settings).sampling.max_new_tokens

    assert drafted(max_completion_tokens=9000) == 150
    assert drafted(max_completion_tokens=120, max_tokens=10) == 120
    assert drafted(max_tokens=1) == drafted()


@pytest.mark.parametrize(
    ("most", "stop", "text", "reason"),
    [
        (1, None, "Why ", "length"),  # of 38 characters, in 9 tokens
        (3, None, "Why number 1", "length"),
        (3, "number", "Why ", "stop"),
        (9, None, "Why number 1?\nIt was told with seed 1.", "stop"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_joke_with_more_tokens_than_wanted_is_cut_off(
    client: TestClient, most: int, stop: str | None, text: str, reason: str, *, stream: bool
) -> None:
    body = {"prompt": "Why", "seed": 1, "max_tokens": most, "stop": stop, "stream": stream}
    told = client.post("/v1/completions", json=body)
    answer = json.loads(told.text.partition("\n")[0].removeprefix("data: "))
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, reason)
    if not stream:
        assert answer["usage"]["completion_tokens"] == most


def test_the_best_of_many_are_candidates() -> None:
    settings = load_settings(candidates=5)
    assert CompletionBody(n=2, best_of=7).to_request(settings).candidates == 3
    assert CompletionBody(n=2).to_request(settings).candidates == 5


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"n": 3, "best_of": 2}, "'best_of' must be at least 'n'"),
        ({"best_of": 2, "candidates": 2}, "cannot be combined"),
        ({"best_of": 1000}, "candidates"),
        ({"stream_options": {"include_usage": True}}, "'stream_options' needs 'stream'"),
        ({"stream": True, "stream_options": {"include_usages": True}}, "include_usages"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "not supported"),
    ],
)
def test_what_does_not_fit_together_is_named(
    client: TestClient, body: dict[str, object], named: str
) -> None:
    refused = client.post("/v1/completions", json=body)
    assert refused.status_code == 422
    assert named in refused.json()["error"]["message"]


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


def test_each_prompt_of_a_list_has_a_seed_of_its_own() -> None:
    first, second = CompletionBody(prompt=["Why"] * 2).to_requests(load_settings())
    assert first.seed != second.seed
    same, again = CompletionBody(prompt=["Why"] * 2, seed=3).to_requests(load_settings())
    assert same.seed == again.seed == 3
