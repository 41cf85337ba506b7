"""Pictures of jokes: every text fits, whatever the model writes."""

from __future__ import annotations

import io

import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageChops

from joker.web.picture import HEIGHT, WIDTH, draw_joke

MARGIN = 50


def open_picture(question: str, answer: str) -> Image.Image:
    picture = Image.open(io.BytesIO(draw_joke(question, answer)))
    assert (picture.format, picture.size) == ("PNG", (WIDTH, HEIGHT))
    return picture.convert("RGB")


def ink_of(picture: Image.Image) -> tuple[int, int, int, int]:
    """Return the box of everything that is drawn, without the stripe at the left."""
    content = picture.crop((MARGIN // 2, 0, WIDTH, HEIGHT))
    paper = Image.new("RGB", content.size, content.getpixel((0, 0)))
    left, top, right, bottom = ImageChops.difference(content, paper).getbbox() or (0, 0, 0, 0)
    return left + MARGIN // 2, top, right + MARGIN // 2, bottom


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Why?", "No."),
        ("Why did the kettle quit the choir?", "It could only hold one note."),
        ("words " * 60, "more words " * 30),
        ("words " * 2000, "more words " * 2000),
        ("W" * 3000, "x"),
        ("first\n" * 200, "i" * 3000),
        ("Ünïcödé — “quoted”… 😀 €5?", "Smørrebrød, naïveté & œuvres."),
    ],
)
def test_a_joke_never_leaves_the_picture(question: str, answer: str) -> None:
    left, top, right, bottom = ink_of(open_picture(question, answer))
    assert MARGIN < left < right < WIDTH - MARGIN
    assert MARGIN < top < bottom < HEIGHT - MARGIN


def test_short_jokes_have_larger_letters() -> None:
    heights = []
    for question in ("Why did the kettle quit?", "Why did the kettle quit? " * 20):
        picture = open_picture(question, "It boiled.")
        first_column = picture.crop((MARGIN, 0, 110, 540))
        paper = Image.new("RGB", first_column.size, picture.getpixel((MARGIN, 0)))
        rows = ImageChops.difference(first_column, paper).convert("L").point(bool)
        filled = [bool(rows.crop((0, y, rows.width, y + 1)).getbbox()) for y in range(rows.height)]
        top = filled.index(True)
        heights.append(filled.index(False, top) - top)
    assert heights[0] > 2 * heights[1]


def test_letters_that_the_font_lacks_are_spelled_out() -> None:
    assert draw_joke("Zoë’s café — why 😀?", "œ") == draw_joke("Zoe’s cafe - why ?", "oe")


def test_a_joke_in_another_script_is_replaced_by_a_sentence() -> None:
    russian, japanese = draw_joke("Что делает кот?", "Мяу"), draw_joke("Why?", "猫")
    assert russian == japanese != draw_joke("Why?", "No.")


def test_a_stored_joke_has_a_picture_that_may_be_cached(client: TestClient) -> None:
    asked = {"prompt": "Why do cats"}
    told = client.post("/generate", json=asked, headers={"Prefer": "wait=30"}).json()
    (joke,) = told["result"]
    picture = client.get(f"{joke['link']}/image.png")
    assert picture.headers["Content-Type"] == "image/png"
    assert picture.headers["Cache-Control"] == "max-age=86400"
    assert picture.content == draw_joke(joke["question"], joke["answer"])
    preview = client.get(f"{joke['link']}/image.png?punchline=false")
    assert preview.content == draw_joke(joke["question"], "...")


def test_a_reported_or_unknown_joke_has_no_picture(client: TestClient) -> None:
    told = client.post("/generate", json={}, headers={"Prefer": "wait=30"}).json()
    link = told["result"][0]["link"]
    client.post(f"{link}/votes", json={"vote": "report"})
    assert client.get(f"{link}/image.png").status_code == 404
    assert client.get("/jokes/abcdefghijkl/image.png").status_code == 404
