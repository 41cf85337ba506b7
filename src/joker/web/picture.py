"""Draws a joke as a picture, for link previews and for sharing."""

from __future__ import annotations

import io
import unicodedata
from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 1200, 630
"""Pixels, the usual size of Open Graph images."""

_MARGIN = 70
_TITLE = "Surely You're Joking, GPT-2!"
_TITLE_SIZE = 32
_TITLE_TOP = HEIGHT - _MARGIN - _TITLE_SIZE
_TEXT_HEIGHT = _TITLE_TOP - _MARGIN * 1.5
_MAX_SIZE, _MIN_SIZE, _STEP = 84, 20, 4
_LEADING = 1.3
_MAX_CHARACTERS = 1500  # More do not fit even at the smallest size.
_UNSUPPORTED = ("This picture cannot show the script of the joke.", "Read it at its link.")

_PAPER, _INK, _SOFT, _ACCENT = "#fdf7ee", "#2a1f2d", "#655868", "#a3195b"

# Pillow's own font has ASCII, curly quotes and little more.
_TRANSLITERATIONS = str.maketrans(
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
    """Return a PNG of `WIDTH` by `HEIGHT` with a joke in the largest font size that fits.

    The font has neither accents nor emoji, so they are left out. A joke in another script is
    replaced by a sentence that says so.
    """
    drawable = _transliterate(question[:_MAX_CHARACTERS]), _transliterate(answer[:_MAX_CHARACTERS])
    if not all(drawable):
        drawable = _UNSUPPORTED
    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((0, 0, 16, HEIGHT), _ACCENT)
    size, parts = _fit(drawable)
    font, line_height = _font(size), size * _LEADING
    gap = size / 2
    height = line_height * sum(map(len, parts)) + gap
    top = _MARGIN + max(0, (_TEXT_HEIGHT - height) / 2)
    for lines, color, stroke_width in zip(parts, (_INK, _ACCENT), (0, size / 48), strict=True):
        for line in lines:
            canvas.text((_MARGIN, top), line, color, font, stroke_width=stroke_width)
            top += line_height
        top += gap
    canvas.text((_MARGIN, _TITLE_TOP), _TITLE, _SOFT, _font(_TITLE_SIZE))
    file = io.BytesIO()
    image.quantize(64).save(file, "PNG")
    return file.getvalue()


def _fit(texts: tuple[str, str]) -> tuple[int, list[list[str]]]:
    """Return the largest font size at which both texts fit, and their lines.

    If they do not fit at the smallest size, they are truncated.
    """
    for size in range(_MAX_SIZE, _MIN_SIZE - 1, -_STEP):
        parts = [_wrap(text, size) for text in texts]
        max_lines = int((_TEXT_HEIGHT - size / 2) / (size * _LEADING))
        if sum(map(len, parts)) <= max_lines:
            return size, parts
    question, answer = parts
    question = _truncate(question, max(max_lines - len(answer), max_lines // 2))
    return size, [question, _truncate(answer, max_lines - len(question))]


def _truncate(lines: list[str], max_lines: int) -> list[str]:
    return lines if len(lines) <= max_lines else [*lines[: max_lines - 1], "..."]


def _wrap(text: str, size: int) -> list[str]:
    """Break a text into lines that fit, at spaces if possible."""
    max_width = (WIDTH - 2 * _MARGIN) / size
    lines = []
    for paragraph in text.splitlines():
        line, width = "", 0.0
        for word in paragraph.split():
            word_width = sum(map(_advance, word))
            if line and width + _advance(" ") + word_width <= max_width:
                line, width = f"{line} {word}", width + _advance(" ") + word_width
                continue
            if line:
                lines.append(line)
            line, width = word, word_width
            if width > max_width:
                *full_lines, line = _break_word(word, max_width)
                lines += full_lines
                width = sum(map(_advance, line))
        if line:
            lines.append(line)
    return lines


def _break_word(word: str, max_width: float) -> list[str]:
    pieces, width = [""], 0.0
    for character in word:
        width += _advance(character)
        if width > max_width:
            pieces.append("")
            width = _advance(character)
        pieces[-1] += character
    return pieces


@cache
def _advance(character: str) -> float:
    """Return a character's width, without kerning, in units of the font size.

    It is the maximum of two sizes, because small glyphs are rounded to whole pixels.
    """
    return max(_font(size).getlength(character) / size for size in (_MIN_SIZE, _MAX_SIZE))


def _transliterate(text: str) -> str:
    """Return a text in characters that the font has, or an empty one if letters are missing."""
    characters = []
    for character in text.translate(_TRANSLITERATIONS):
        if character.isspace() or _has_glyph(character):
            characters.append(
                "\n" if character == "\n" else " " if character.isspace() else character
            )
            continue
        plain = [part for part in unicodedata.normalize("NFKD", character) if _has_glyph(part)]
        if not plain and character.isalnum():
            return ""
        characters += plain
    return "".join(characters).strip()


@cache
def _has_glyph(character: str) -> bool:
    font = _font(_TITLE_SIZE)
    return character.isprintable() and _glyph(font, character) != _glyph(font, "\uffff")


def _glyph(font: _Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


@cache
def _font(size: int) -> _Font:
    return ImageFont.load_default(size)
