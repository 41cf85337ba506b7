"""Links to share: an id that says all it takes to tell one joke again.

Nothing is stored, so a link does not expire. The same model tells the same joke; after
the server's model changed, a link tells another one with the same beginning.
"""

from __future__ import annotations

import base64
import binascii
import json

from joker.core.errors import UnknownJobError
from joker.jobs.job import JokeRequest


def link_to(request: JokeRequest, seed: int) -> str:
    """Return the path that tells one of a request's jokes, the one with this seed, again."""
    sampling = request.sampling
    recipe = (
        request.prompt,
        seed,
        request.exclude_categories or int(request.safe),
        request.candidates,
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.max_new_tokens,
        *([sampling.stop] if sampling.stop else ()),
    )
    text = json.dumps(recipe, ensure_ascii=False, separators=(",", ":"))
    return "/jokes/" + base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read_link(link_id: str) -> dict[str, object]:
    """Return the fields of `joker.web.schemas.JokeOptions` in a link's id, still to be validated.

    Raises:
        UnknownJobError: If no server of ours made it.
    """
    try:
        text = base64.urlsafe_b64decode(link_id + "=" * (-len(link_id) % 4))
        recipe = json.loads(text)
        prompt, seed, withheld, candidates, temperature, top_k, top_p, max_new_tokens, *more = (
            recipe
        )
        (stop,) = more or [()]
    except (binascii.Error, TypeError, ValueError) as error:
        raise UnknownJobError(
            "this link leads to no joke; check that all of it was copied"
        ) from error
    return {
        "prompt": prompt,
        "seed": seed,
        "safe": withheld != 0,
        "exclude_categories": [] if withheld in (0, 1) else withheld,
        "candidates": candidates,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "stop": stop,
    }
