import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient

from joker.core.joke import GeneratedJoke

MakeClient = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]


CHAT: list[Any] = [
    {"role": "system", "content": "You are a comedian."},
    {"role": "user", "content": "Tell me a joke."},
    {"role": "assistant", "content": "Why?\nBecause."},
    {"role": "user", "content": "Why do cats"},
]


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


def test_a_chat_without_a_users_message_gets_any_joke(client: TestClient) -> None:
    told = client.post("/v1/chat/completions", json={"messages": CHAT[:1]}).json()
    assert told["choices"][0]["message"]["content"].startswith("Why did the kettle")


def test_half_a_surrogate_pair_in_a_message_is_refused(client: TestClient) -> None:
    body = b'{"messages": [{"role": "user", "content": "\\ud800"}]}'
    refused = client.post(
        "/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "messages")
