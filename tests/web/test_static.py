from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_pages_name_files_by_their_content_and_browsers_keep_them(
    client: TestClient, page: str
) -> None:
    addresses = re.findall(r'"(/static/[^"]+)"', client.get(page).text)
    assert addresses
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("query", ["", "?0123456789abcdef"])
def test_another_address_of_a_file_is_checked_by_its_tag(client: TestClient, query: str) -> None:
    first = client.get(f"/static/page.js{query}")
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get(f"/static/page.js{query}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", "/joke", "/info", "/generate/nothing"])
def test_answers_of_the_api_are_never_kept(client: TestClient, path: str) -> None:
    assert client.get(path).headers["Cache-Control"] == "no-store"


def test_long_texts_are_compressed_for_those_who_ask(client: TestClient) -> None:
    for path in ("/", "/static/page.js", "/openapi.json", "/static/docs/swagger-ui.css"):
        plain = client.get(path, headers={"Accept-Encoding": "identity"})
        small = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in plain.headers
        assert small.headers["Content-Encoding"] == "gzip"
        assert "Accept-Encoding" in small.headers["Vary"]
        assert small.content == plain.content


def test_streams_of_events_are_not_compressed(client: TestClient) -> None:
    job = client.post("/generate", json={"n": 3}).headers["Location"]
    with client.stream("GET", f"{job}/events", headers={"Accept-Encoding": "gzip"}) as stream:
        assert "Content-Encoding" not in stream.headers
        assert "SUCCESS" in "".join(stream.iter_text())
