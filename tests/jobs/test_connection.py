from __future__ import annotations

import pytest

from joker.jobs.connection import Sentinels, address_of, celery_broker

URL = "sentinel://teller:p%40ss@one:26380,two,[::1]:26381/3?master=jokes&sentinel_password=a%26b"


def test_a_url_names_the_sentinels_the_primary_and_both_passwords() -> None:
    sentinels = Sentinels.parse(URL)
    assert sentinels
    assert sentinels.hosts == (("one", 26380), ("two", 26379), ("::1", 26381))
    assert sentinels.master == "jokes"
    assert sentinels.sentinel_options["password"] == "a&b"
    assert sentinels.primary_options == {"db": 3, "username": "teller", "password": "p@ss"}
    assert "p@ss" not in repr(sentinels)


def test_celery_gets_one_url_a_sentinel() -> None:
    url, options = celery_broker(URL)
    user = "sentinel://teller:p%40ss@"
    assert url == f"{user}one:26380/3;{user}two:26379/3;{user}[::1]:26381/3"
    assert options["master_name"] == "jokes"
    assert options["sentinel_kwargs"]["password"] == "a&b"
    assert celery_broker("redis://queue/1") == ("redis://queue/1", {})


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (URL, "one:26380,two,[::1]:26381"),
        ("redis://:secret@queue/0", "queue:6379"),
        ("rediss://queue:6380", "queue:6380"),
    ],
)
def test_an_address_has_no_password(url: str, address: str) -> None:
    assert address_of(url) == address
