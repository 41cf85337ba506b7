"""The stub batch: returns a few fixed jokes, token by token, without a model.

For tests and for developing a page or a bot on any machine, with jokes that make sense.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from joker.core.joke import Joke
from joker.core.tokenizer import EncodedJoke, JokeTokenizer
from joker.engines.protocol import is_greedy
from joker.engines.tasks import BATCH_TOKENS, EngineTask, GenerationTask, Key, Output, ScoringTask

SCRIPT = (
    Joke("Why did the map go to therapy?", "It had lost its sense of scale."),
    Joke("Why do elevators make good friends?", "They are there for all your ups and downs."),
    Joke("What did the blanket say to the bed?", "I have got you covered for tonight."),
    Joke("What do you call a potato that reads the news?", "A common tater."),
    Joke("How do oceans sort their letters?", "By current address."),
    Joke("Why was the calendar so relaxed?", "It takes one day at a time."),
)

_KNOWN_NATS = 1.0
_UNKNOWN_NATS = 5.0


class StubBatch:
    """Advances tasks with fixed jokes; a `joker.engines.tasks.Batch`.

    A prompt is completed to one of the jokes that begin with it, or contain it if it is a hint. If
    there is none, it gets the answer of any joke. The seed chooses among them; greedy sampling
    takes the first.

    Args:
        tokenizer: Encodes the jokes.
        jokes: At least one joke.
    """

    capacity = BATCH_TOKENS

    def __init__(self, tokenizer: JokeTokenizer, jokes: Sequence[Joke] = SCRIPT) -> None:
        self._tokenizer = tokenizer
        self._jokes = jokes
        self._known = {tuple(tokenizer.encode(joke).input_ids) for joke in jokes}
        self._generating: dict[Key, list[int]] = {}
        self._scoring: dict[Key, EncodedJoke] = {}

    def add(self, key: Key, task: EngineTask) -> None:
        if isinstance(task, ScoringTask):
            self._scoring[key] = task.joke
        else:
            self._generating[key] = self._continue(task)[: task.sampling.max_new_tokens]

    def remove(self, key: Key) -> None:
        self._generating.pop(key, None)
        self._scoring.pop(key, None)

    def step(self) -> dict[Key, Output]:
        outputs = {
            key: Output(done=True, log_probabilities=self._score(joke))
            for key, joke in self._scoring.items()
        }
        outputs |= {
            key: Output([token], done=not rest) for key, (token, *rest) in self._generating.items()
        }
        self._scoring = {}
        self._generating = {key: ids[1:] for key, ids in self._generating.items() if ids[1:]}
        return outputs

    def _continue(self, task: GenerationTask) -> list[int]:
        """Return the ids that follow a prompt."""
        template = self._tokenizer.template
        text = self._tokenizer.decode(task.prompt_ids).strip()
        start, answer_marker, _ = text.removeprefix(template.question_marker).partition(
            template.answer_marker
        )
        start = start.strip()
        hint = bool(answer_marker) and template.is_hint(start)
        fitting = [joke for joke in self._jokes if _fits(start, joke, hint)]
        choices = fitting or self._jokes
        joke = choices[0]
        if not is_greedy(task.sampling):
            joke = random.Random(task.seed).choice(choices)
        if hint:
            if not fitting:
                joke = Joke(f"{start}: {joke.question}", joke.answer)
            encoded_ids = self._tokenizer.encode_punchline_first(joke, start).input_ids
            return encoded_ids[len(task.prompt_ids) :]
        if answer_marker:
            encoded = self._tokenizer.encode(joke)
            return encoded.input_ids[encoded.answer_start :]
        rest = joke.question[len(start) :] if fitting else ""
        question = self._tokenizer.backend.encode(rest, add_special_tokens=False).ids
        return [*question, *self._tokenizer.encode_answer_alone(joke).input_ids[1:]]

    def _score(self, joke: EncodedJoke) -> list[float]:
        nats = _KNOWN_NATS if tuple(joke.input_ids) in self._known else _UNKNOWN_NATS
        return [-nats] * (len(joke) - joke.answer_start)


def _fits(start: str, joke: Joke, hint: bool) -> bool:
    """Return whether a joke's question begins with a start, or the joke contains a hint."""
    if hint:
        return start.lower() in f"{joke.question} {joke.answer}".lower()
    return joke.question.startswith(start)
