from __future__ import annotations

from datetime import date, timedelta

from joker.web.html import topics_of


def test_topics_change_every_day_until_all_had_their_turn() -> None:
    days = [topics_of(date(2026, 12, 25) + timedelta(day)) for day in range(14)]
    topics = [topic for day in days for topic in day]
    assert len(topics) == len({*topics}) == 42
    assert topics_of(date(2026, 12, 25) + timedelta(14)) == days[0]
