"""How tokens are drawn from a model's distribution: one frozen value, shared by every engine."""

from __future__ import annotations

from dataclasses import dataclass

from joker.core.errors import SamplingError

MOST_STOPS = 4


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters: the original system's defaults, with a temperature that readers chose.

    Attributes:
        temperature: Divides the logits before the softmax; 0 takes the likeliest token always.
        top_k: Keep only the k likeliest tokens; 0 keeps all.
        top_p: Keep the smallest set of tokens whose probability reaches p.
        max_new_tokens: Most tokens generated after the prompt.
        stop: Texts that end an answer where the first of them begins; at most 4, none empty.
    """

    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 0.95
    max_new_tokens: int = 100
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 5.0:
            raise SamplingError(f"temperature must lie between 0 and 5, not {self.temperature}")
        if self.top_k < 0:
            raise SamplingError(f"top_k must be 0 (keep all) or more, not {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise SamplingError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.max_new_tokens < 1:
            raise SamplingError(f"max_new_tokens must be 1 or more, not {self.max_new_tokens}")
        if len(self.stop) > MOST_STOPS or not all(self.stop):
            raise SamplingError(f"stop takes at most {MOST_STOPS} texts, none of them empty")

    def cut(self, text: str) -> str:
        """Return what stands before the first stop in a text, or all of it."""
        places = [text.find(stop) for stop in self.stop if stop in text]
        return text[: min(places, default=len(text))]
