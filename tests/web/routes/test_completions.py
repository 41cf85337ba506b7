import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient

from joker.core.joke import GeneratedJoke
from joker.settings import read_settings
from joker.web.openai_schemas import ChatBody, CompletionBody, Message

MakeClient = Callable[..., AbstractContextManager[TestClient]]
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


CHAT: list[Any] = [
    {"role": "system", "content": "You are a comedian."},
    {"role": "user", "content": "Tell me a joke."},
    {"role": "assistant", "content": "Why?\nBecause."},
    {"role": "user", "content": "Why do cats"},
]
NEUTRAL: dict[str, Any] = {
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "logprobs": None,
    "echo": False,
    "logit_bias": {},
    "user": "somebody",
    "safety_identifier": "somebody",
    "prompt_cache_key": "jokes",
    "verbosity": "medium",
    "modalities": ["text"],
    "response_format": {"type": "text"},
    "top_logprobs": 0,
    "suffix": None,
    "store": False,
    "metadata": None,
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": None,
    "service_tier": "auto",
    "stream_options": None,
    "stop": None,
    "n": None,
    "seed": None,
    "temperature": None,
    "max_tokens": 100_000,
}


@pytest.mark.integration
def test_the_openai_client_chats(openai_client: openai.OpenAI) -> None:
    told = openai_client.chat.completions.create(
        model="joker",
        messages=CHAT,
        n=2,
        seed=3,
        temperature=0.7,
        top_p=0.9,
        max_completion_tokens=40,
    )
    assert told.object == "chat.completion"
    assert [choice.message.content for choice in told.choices] == [
        "Why do cats number 3?\nIt was told with seed 3.",
        "Why do cats number 4?\nIt was told with seed 4.",
    ]
    assert {choice.finish_reason for choice in told.choices} == {"stop"}
    assert told.usage is not None
    assert told.usage.total_tokens == 21


@pytest.mark.integration
def test_the_openai_client_streams_a_chat(openai_client: openai.OpenAI) -> None:
    *chunks, last = openai_client.chat.completions.create(
        model="joker",
        messages=CHAT,
        n=2,
        seed=3,
        stop="\n",
        stream=True,
        stream_options={"include_usage": True},
    )
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert [(c.index, c.delta.content) for chunk in chunks for c in chunk.choices] == [
        (0, "Why do cats number 3?"),
        (1, "Why do cats number 4?"),
    ]
    assert last.usage is not None
    assert last.usage.total_tokens == 21
    failing = openai_client.chat.completions.create(
        model="joker", messages=[{"role": "user", "content": "fail"}], stream=True
    )
    with pytest.raises(openai.APIError, match="5 attempts"):
        list(failing)


def test_a_chats_stream_ends_with_done(client: TestClient) -> None:
    streamed = client.post("/v1/chat/completions", json={"messages": CHAT, "stream": True})
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    assert streamed.text.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize(
    ("content", "begins"),
    [
        ("Why do cats", "Why do cats number"),
        ([{"type": "text", "text": "Why do"}, {"type": "text", "text": "cats"}], "Why do cats n"),
        ("tell me a joke about cats", "tell me a joke about cats number"),
        ("Hello there! Why do cats", "Why do cats number"),
        ("hello kitty", "hello kitty number"),
        ("Why do they say hi, hey!", "Why do they say hi, hey! number"),
        ("Another planet", "Another planet number"),
        ("", "Why did the kettle"),
        (None, "Why did the kettle"),
        ("Hi!", "Why did the kettle"),
        ("Tell me a joke", "Why did the kettle"),
        ("Hey, can you tell me another funny joke, please?", "Why did the kettle"),
        ("one more", "Why did the kettle"),
    ],
)
def test_a_chats_last_message_is_the_prompt(
    client: TestClient, content: object, begins: str
) -> None:
    messages = [*CHAT[:3], {"role": "user", "content": content}]
    told = client.post("/v1/chat/completions", json={"messages": messages}).json()
    assert told["choices"][0]["message"]["content"].startswith(begins)


@pytest.mark.parametrize("stream", [False, True])
def test_who_asks_for_any_joke_gets_the_best_of_the_pool(
    make_client: MakeClient, picked: GeneratedJoke, *, stream: bool
) -> None:
    body = {"messages": CHAT[:2], "n": 2, "user": "me", "stop": None, "stream": stream}
    with make_client(pool_size=1) as client:
        told = client.post("/v1/chat/completions", json=body).text
    assert json.dumps(str(picked)) in told
    assert "Why did the kettle number" in told


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


def test_a_chat_without_a_users_message_gets_any_joke(client: TestClient) -> None:
    told = client.post("/v1/chat/completions", json={"messages": CHAT[:1]}).json()
    assert told["choices"][0]["message"]["content"].startswith("Why did the kettle")


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/completions", {"prompt": ["Why"], "best_of": None}),
        ("/v1/completions", {"prompt": None}),
        ("/v1/chat/completions", {"messages": CHAT}),
    ],
)
def test_values_that_ask_for_nothing_are_accepted(
    client: TestClient, path: str, asked: dict[str, object]
) -> None:
    assert client.post(path, json={**asked, **NEUTRAL}).status_code == 200
    options = {"include_usage": None, "include_obfuscation": False, "continuous_usage_stats": None}
    streamed = client.post(path, json={**asked, "stream": True, "stream_options": options})
    assert streamed.status_code == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("presence_penalty", 0.5),
        ("presence_penalty", False),
        ("frequency_penalty", -1),
        ("logprobs", True),
        ("logprobs", 0),
        ("logit_bias", {"50256": -100}),
        ("echo", True),
        ("response_format", {"type": "json_object"}),
        ("top_logprobs", 2),
        ("suffix", " The end."),
        ("store", True),
        ("metadata", {"topic": "cats"}),
        ("tools", [{"type": "function", "function": {"name": "laugh"}}]),
        ("parallel_tool_calls", False),
    ],
)
def test_what_is_not_supported_is_refused_in_openais_words(
    client: TestClient, path: str, name: str, value: object
) -> None:
    body = {"messages": CHAT} if "chat" in path else {}
    refused = client.post(path, json={**body, name: value})
    assert refused.status_code == 422
    assert refused.headers["Content-Type"] == "application/json"
    assert refused.json()["error"] == {
        "message": f"{name}: not supported; leave it out",
        "type": "invalid_request_error",
        "param": name,
        "code": None,
    }


def test_half_a_surrogate_pair_in_a_message_is_refused(client: TestClient) -> None:
    body = b'{"messages": [{"role": "user", "content": "\\ud800"}]}'
    refused = client.post(
        "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "messages")


def test_statuses_have_openais_types_and_codes(make_client: MakeClient) -> None:
    with make_client(api_keys=("sesame",), rate_limit="1/hour") as client:
        keyless = client.get("/v1/models")
        client.headers["Authorization"] = "Bearer sesame"
        answers = [
            keyless,
            client.get("/v1/models/gpt-9"),
            client.get("/v1/nowhere"),
            client.post("/v1/completions", json={"prompt": "fail"}),
            client.post("/v1/completions", json={}),
        ]
    errors = [answer.json()["error"] for answer in answers]
    assert [
        (answer.status_code, error["type"], error["code"])
        for answer, error in zip(answers, errors, strict=True)
    ] == [
        (401, "invalid_request_error", "invalid_api_key"),
        (404, "invalid_request_error", "model_not_found"),
        (404, "invalid_request_error", None),
        (422, "invalid_request_error", "joke_refused"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
    ]


def test_a_limit_of_tokens_leaves_drafts_room_for_a_joke() -> None:
    settings = read_settings(max_new_tokens=150)

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
    settings = read_settings(candidates=5)
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
    first, second = CompletionBody(prompt=["Why"] * 2).to_requests(read_settings())
    assert first.seed != second.seed
    same, again = CompletionBody(prompt=["Why"] * 2, seed=3).to_requests(read_settings())
    assert same.seed == again.seed == 3
