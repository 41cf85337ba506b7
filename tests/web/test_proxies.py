"""Whose address counts behind reverse proxies: uvicorn as it runs, with its own header parsing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx2
import pytest

pytestmark = pytest.mark.integration

Serve = Callable[..., AbstractContextManager[str]]


def ask(address: str, forwarded_for: str) -> int:
    return httpx2.get(f"{address}/joke", headers={"X-Forwarded-For": forwarded_for}).status_code


def test_the_rightmost_address_that_is_no_proxys_counts(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1,10.244.0.0/16")
    with serve(rate_limit="1/hour") as address:
        assert ask(address, "192.0.2.1") == 200
        # What a client itself writes stands further left.
        assert ask(address, "192.0.2.77, 192.0.2.1") == 429
        assert ask(address, "10.244.9.9, 192.0.2.1, 10.244.0.7") == 429
        assert ask(address, "192.0.2.1, 192.0.2.2") == 200


def test_a_header_from_anybody_else_counts_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.244.0.0/16")
    with serve(rate_limit="1/hour") as address:
        assert ask(address, "192.0.2.1") == 200
        assert ask(address, "192.0.2.2") == 429
