from collections.abc import Callable
from contextlib import AbstractContextManager

from fastapi.testclient import TestClient

MakeClient = Callable[..., AbstractContextManager[TestClient]]


def test_info_tells_limits_and_defaults(make_client: MakeClient) -> None:
    with make_client(max_count=4, candidates=2) as client:
        info = client.get("/info").json()
    assert info["limits"]["jokes"] == 4
    assert info["defaults"]["candidates"] == 2
    assert info["defaults"]["top_k"] == 50
