from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from fastapi.testclient import TestClient

MakeClient = Callable[..., AbstractContextManager[TestClient]]
Serve = Callable[..., AbstractContextManager[str]]

CHAT = [{"role": "user", "content": "Why do cats"}]


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
    "parallel_tool_calls": True,
    "functions": [],
    "function_call": "none",
    "audio": None,
    "prediction": None,
    "web_search_options": None,
    "prompt_cache_retention": "24h",
    "service_tier": "auto",
    "stream_options": None,
    "stop": None,
    "n": None,
    "seed": None,
    "temperature": None,
    "max_tokens": 100_000,
}


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
    for parameters in (NEUTRAL, dict.fromkeys(NEUTRAL)):
        assert client.post(path, json={**asked, **parameters}).status_code == 200
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
        ("parallel_tool_calls", 1),
        ("functions", [{"name": "laugh"}]),
        ("function_call", {"name": "laugh"}),
        ("audio", {"voice": "ash", "format": "mp3"}),
        ("prediction", {"type": "content", "content": "Why"}),
        ("web_search_options", {}),
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
