from __future__ import annotations

from datetime import date, timedelta

import pytest

from joker.core.model_folder import ModelFolder, bundled_model
from joker.generation.prompt import Prompt
from joker.web.html import HTML, JSON, STARTS, TEXT, TOPICS, choose_media_type, topics_of


def test_topics_change_every_day_until_all_had_their_turn() -> None:
    days = [topics_of(date(2026, 12, 25) + timedelta(day)) for day in range(20)]
    topics = [topic for day in days for topic in day]
    assert len(topics) == len({*topics}) == len(TOPICS) == 60
    assert topics_of(date(2026, 12, 25) + timedelta(20)) == days[0]


@pytest.mark.parametrize("suggested", STARTS + TOPICS)
def test_picked_jokes_fit_what_the_page_suggests(suggested: str) -> None:
    picked = ModelFolder.open(bundled_model()).read_picked_jokes()
    prompt = Prompt.parse(suggested)
    assert sum(prompt.fits(joke.pair) for joke in picked) >= 2


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
