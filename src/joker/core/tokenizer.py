"""Jokes as token ids: one tokenizer and one template for training, evaluation and serving.

Built on `tokenizers` alone, so that serving needs neither PyTorch nor Transformers. Each part of a
joke is encoded separately, so the boundary between question and answer falls between two tokens in
every template, and a special token's text inside a joke stays ordinary text.

A joke is always ``[start] markers and text [end]``: even the first marker is predicted, from the
start token, so that bits per byte can count every token.

A model with a critic has two more tokens, `WORKS` and `FAILS`, that may follow the end of a joke:
the probability of `WORKS` says whether the joke works.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

from tokenizers import Tokenizer

from joker.core.errors import TokenizerError
from joker.core.joke import Joke
from joker.core.template import Template

WORKS = "<|works|>"
FAILS = "<|fails|>"
_VERDICT_WEIGHT = 10.0
"""Weight of a verdict's loss: a joke has about thirty tokens, and one verdict."""

REPLACEMENT_CHARACTER = "\ufffd"
"""What bytes that are not UTF-8, such as a part of a character, decode to."""


@dataclass(frozen=True, slots=True)
class EncodedJoke:
    """A joke's token ids and where its parts begin.

    Attributes:
        input_ids: Start token, question part, answer part, end token.
        answer_start: Index of the answer's first token, right after the answer marker; the number
            of tokens if no answer follows the question.
        learned_from: Index of the first token that training learns to predict.
        weight: Weight of its tokens' loss in training.
    """

    input_ids: list[int]
    answer_start: int
    learned_from: int = 1
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.input_ids)


class JokeTokenizer:
    """A byte-level BPE (or other fast) tokenizer that knows one template.

    Args:
        tokenizer: The backend, such as that of a Transformers fast tokenizer; it is copied.
        template: Its special tokens must be in the vocabulary.
        end_token: The tokenizer's end-of-text token, such as ``<|endoftext|>``.
        start_token: The token that every joke begins with; by default the end token.

    Raises:
        TokenizerError: If one of these tokens is not in the vocabulary.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template,
        end_token: str,
        start_token: str | None = None,
    ) -> None:
        self.backend = plain_text_copy(tokenizer)
        self.template = template
        self.end_id = self._token_id(end_token)
        self.start_id = self._token_id(start_token or end_token)
        self._special_ids = {text: self._token_id(text) for text in template.special_tokens}
        self._verdict_ids = [self.backend.token_to_id(verdict) for verdict in (FAILS, WORKS)]

    @classmethod
    def from_folder(cls, folder: Path, template: Template) -> JokeTokenizer:
        """Read ``tokenizer.json`` and ``tokenizer_config.json`` of a Hugging Face folder."""
        try:
            backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
            config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except Exception as error:  # the Rust side raises plain Exception
            raise TokenizerError(f"cannot read the tokenizer in {folder}: {error}") from error
        end, start = (_token_text(config.get(key)) for key in ("eos_token", "bos_token"))
        if end is None:
            raise TokenizerError(f"the tokenizer in {folder} has no end-of-text token")
        return cls(backend, template, end, start)

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, including added tokens."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def added_ids(self) -> list[int]:
        """Ids of the tokens that the template and the critic add to a vocabulary."""
        verdicts = [token_id for token_id in self._verdict_ids if token_id is not None]
        return [*self._special_ids.values(), *verdicts]

    def encode(self, joke: Joke) -> EncodedJoke:
        """Return the joke's ids, including the start and end tokens."""
        return self._with_answer(self._encode_question(self.template.escape(joke.question)), joke)

    @property
    def has_critic(self) -> bool:
        """Whether the vocabulary has the tokens that say whether a joke works."""
        return None not in self._verdict_ids

    def encode_punchline_first(self, joke: Joke, hint: str = "") -> EncodedJoke:
        """Return the ids of a joke, punchline first, after a hint that is not learned."""
        lead, _, tail = _split(self.template.answer_prefix)
        question = self._encode_question(self.template.escape(joke.question))[1:]
        answer = self._encode_text(tail + self.template.escape(joke.answer) + lead)
        start = self.encode_prompt(hint)
        ids = [*start, *answer, *question, self.end_id]
        return EncodedJoke(ids, answer_start=len(ids), learned_from=len(start) if hint else 1)

    def encode_verdict(self, joke: Joke, works: bool) -> EncodedJoke:
        """Return the ids of a joke and a critic's verdict on it, the only token learned."""
        ids = [*self.encode(joke).input_ids, self._verdict_ids[works]]
        last = len(ids) - 1
        return EncodedJoke(ids, answer_start=last, learned_from=last, weight=_VERDICT_WEIGHT)

    def encode_answer_alone(self, joke: Joke) -> EncodedJoke:
        """Return the ids of an answer without its question: start token, answer marker, answer."""
        return self._with_answer([self.start_id], joke)

    def encode_prompt(self, question_start: str = "") -> list[int]:
        """Return a prompt's ids: start token, question marker, the question's start.

        The answer marker follows a whole question, which ends with a question mark, and in a
        punchline-first template any start; without a start, it is the only marker there.
        """
        question = question_start.strip()
        if not question and self.template.punchline_first:
            return [self.start_id, *self._encode_marker("", self.template.answer_marker)]
        ids = self._encode_question(self.template.escape(question))
        if question.endswith("?") or self.template.is_hint(question):
            return [*ids, *self._encode_answer_marker()]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, including markers, without start and end tokens."""
        kept = [i for i in ids if i not in (self.start_id, self.end_id)]
        return str(self.backend.decode(kept, skip_special_tokens=False))

    def parse(self, ids: Sequence[int]) -> Joke | None:
        """Return the joke up to the end token, or None if the ids are unfinished or malformed."""
        body = list(dropwhile(lambda token_id: token_id == self.start_id, ids))
        if self.end_id not in body:
            return None
        return self.template.parse(self.decode(body[: body.index(self.end_id)]))

    def parse_partial(self, ids: Sequence[int]) -> tuple[str, str]:
        """Return the question and answer so far, without a character whose bytes are incomplete."""
        return self.template.parse_partial(self.decode(ids).rstrip(REPLACEMENT_CHARACTER))

    def _encode_question(self, question: str) -> list[int]:
        lead, marker, tail = _split(self.template.question_prefix)
        ids = [self.start_id, *self._encode_marker(lead, marker)]
        return [*ids, *self._encode_text(tail + question)] if question else ids

    def _with_answer(self, ids: list[int], joke: Joke) -> EncodedJoke:
        _, _, tail = _split(self.template.answer_prefix)
        ids = [*ids, *self._encode_answer_marker()]
        answer = self._encode_text(tail + self.template.escape(joke.answer))
        return EncodedJoke([*ids, *answer, self.end_id], answer_start=len(ids))

    def _encode_answer_marker(self) -> list[int]:
        lead, marker, _ = _split(self.template.answer_prefix)
        return self._encode_marker(lead, marker)

    def _encode_marker(self, lead: str, marker: str) -> list[int]:
        special = self._special_ids.get(marker)
        if special is None:
            return self._encode_text(lead + marker)
        return [*self._encode_text(lead), special]

    def _encode_text(self, text: str) -> list[int]:
        return list(self.backend.encode(text, add_special_tokens=False).ids) if text else []

    def _token_id(self, token: str) -> int:
        token_id = self.backend.token_to_id(token)
        if token_id is None:
            raise TokenizerError(
                f"token {token!r} of template {self.template.label} is not in the tokenizer; "
                "use a model trained with this template"
            )
        return int(token_id)


def plain_text_copy(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy that neither truncates nor pads, and parses no special tokens in text."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True
    copy.no_truncation()
    copy.no_padding()
    return copy


def _split(prefix: str) -> tuple[str, str, str]:
    """Split a prefix into leading white space, marker and trailing white space."""
    marker = prefix.strip()
    if not marker:
        return "", "", prefix
    lead, _, tail = prefix.partition(marker)
    return lead, marker, tail


def _token_text(entry: object) -> str | None:
    """Return a token's text from tokenizer_config.json: a string or an AddedToken mapping."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) and entry else None
