import pytest

from joker.web.negotiation import HTML, JSON, TEXT, choose_media_type


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("application/json", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", HTML),
        ("text/*;q=0.5, application/json;q=0.7", JSON),
        ("text/plain;q=0, */*", JSON),
        ("TEXT/HTML ; q=1", HTML),
        ("image/png", TEXT),
        ("application/json;q=what, text/html;q=0.1", HTML),
        (",;,", TEXT),
    ],
)
def test_the_highest_rated_offer_is_chosen(accept: str, chosen: str) -> None:
    assert choose_media_type(accept, (TEXT, JSON, HTML)) == chosen
