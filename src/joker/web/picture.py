"""The picture of a joke, for previews of its link and for sharing; drawn without a browser.

`joker.web.routes.jokes` serves it.
"""

from __future__ import annotations

import io
import unicodedata
from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 1200, 630
"""Pixels, as link previews expect them."""

_MARGIN = 70
_TITLE = "Surely You're Joking, GPT-2!"
_TITLE_SIZE = 32
_TITLE_TOP = HEIGHT - _MARGIN - _TITLE_SIZE
_LARGEST, _SMALLEST, _STEP = 84, 20, 4
_LEADING = 1.3
_MOST_CHARACTERS = 1500  # More do not fit in the smallest letters.
_UNREADABLE = ("This picture cannot show the script of the joke.", "Read it at its link.")

_PAPER, _INK, _SOFT, _ACCENT = "#fdf7ee", "#2a1f2d", "#655868", "#a3195b"

# Pillow's own font has ASCII, curly quotes and little more.
_SPELLED = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—―−", "-"),
        "ß": "ss",
        "æ": "ae",
        "Æ": "AE",
        "œ": "oe",
        "Œ": "OE",
        "ø": "o",
        "Ø": "O",
        "đ": "d",
        "Đ": "D",
        "ł": "l",
        "Ł": "L",
        "ı": "i",
        "ð": "d",
        "þ": "th",
        "€": " EUR",
        "£": "GBP ",
        "«": '"',
        "»": '"',
        "„": '"',
        "¿": "",
        "¡": "",
        "×": "x",
    }
)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=64)
def draw_joke(question: str, answer: str) -> bytes:
    """Return a PNG of 1200 by 630 pixels with a joke, in letters as large as fit.

    Accents are dropped and emoji left out, since the font has none; a joke in another script is
    replaced by a sentence that says so.

    Args:
        question: The question.
        answer: The punchline; a preview that does not give it away has an ellipsis instead.
    """
    drawable = _spell(question[:_MOST_CHARACTERS]), _spell(answer[:_MOST_CHARACTERS])
    if not all(drawable):
        drawable = _UNREADABLE
    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((0, 0, 16, HEIGHT), _ACCENT)
    size, parts = _fit(drawable)
    font, line_height = _font(size), size * _LEADING
    gap = size / 2
    height = line_height * sum(map(len, parts)) + gap
    top = _MARGIN + max(0, (_room() - height) / 2)
    for lines, color, stroke_width in zip(parts, (_INK, _ACCENT), (0, size / 48), strict=True):
        for line in lines:
            canvas.text((_MARGIN, top), line, color, font, stroke_width=stroke_width)
            top += line_height
        top += gap
    canvas.text((_MARGIN, _TITLE_TOP), _TITLE, _SOFT, _font(_TITLE_SIZE))
    file = io.BytesIO()
    image.quantize(64).save(file, "PNG")
    return file.getvalue()


def _room() -> float:
    """Return the height for question, answer and the gap between them in pixels."""
    return _TITLE_TOP - _MARGIN * 1.5


def _fit(texts: tuple[str, str]) -> tuple[int, list[list[str]]]:
    """Return the largest font size at which both texts fit, and their lines.

    At the smallest size, an ellipsis replaces what still does not fit.
    """
    for size in range(_LARGEST, _SMALLEST - 1, -_STEP):
        parts = [_wrap(text, size) for text in texts]
        most_lines = int((_room() - size / 2) / (size * _LEADING))
        if sum(map(len, parts)) <= most_lines:
            return size, parts
    question, answer = parts
    shown = max(most_lines - len(answer), most_lines // 2)
    return size, [_cut(question, shown), _cut(answer, most_lines - min(shown, len(question)))]


def _cut(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[: most - 1], "..."]


def _wrap(text: str, size: int) -> list[str]:
    """Break a text into lines that fit, at spaces where possible."""
    most = (WIDTH - 2 * _MARGIN) / size
    lines = []
    for paragraph in text.splitlines():
        line, width = "", 0.0
        for word in paragraph.split():
            word_width = sum(map(_advance, word))
            if line and width + _advance(" ") + word_width <= most:
                line, width = f"{line} {word}", width + _advance(" ") + word_width
                continue
            if line:
                lines.append(line)
            line, width = word, word_width
            if width > most:
                *full, line = _break(word, most)
                lines += full
                width = sum(map(_advance, line))
        if line:
            lines.append(line)
    return lines


def _break(word: str, most: float) -> list[str]:
    pieces, width = [""], 0.0
    for sign in word:
        width += _advance(sign)
        if width > most:
            pieces.append("")
            width = _advance(sign)
        pieces[-1] += sign
    return pieces


@cache
def _advance(sign: str) -> float:
    """Return a character's width in units of the font size, rounded up as small letters are.

    The sum ignores kerning, and is fast enough for any text.
    """
    return max(_font(size).getlength(sign) / size for size in (_SMALLEST, _LARGEST))


def _spell(text: str) -> str:
    """Return a text in characters that the font has; empty if it would lose letters."""
    signs = []
    for sign in text.translate(_SPELLED):
        if sign.isspace() or _has(sign):
            signs.append("\n" if sign == "\n" else " " if sign.isspace() else sign)
            continue
        plain = [part for part in unicodedata.normalize("NFKD", sign) if _has(part)]
        if not plain and sign.isalnum():
            return ""
        signs += plain
    return "".join(signs).strip()


@cache
def _has(sign: str) -> bool:
    font = _font(_TITLE_SIZE)
    return sign.isprintable() and _shape(font, sign) != _shape(font, "\uffff")


def _shape(font: _Font, sign: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(sign)
    return mask.size, bytes(mask)


@cache
def _font(size: int) -> _Font:
    return ImageFont.load_default(size)
