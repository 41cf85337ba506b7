"""What schemathesis leaves out or changes: combinations of parameters, and keys used again, which
are refused, and which no schema can express. Other tests have them."""

from __future__ import annotations

from itertools import count
from typing import Any

import schemathesis

TOGETHER = {"best_of", "stream_options"}
APART = ({"safe", "exclude_categories"}, {"effort", "candidates"})
LONGEST_KEY = 255
NUMBERS = count()


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Say whether a case is worth trying."""
    keys = set(case.query or ()) | set(case.body if isinstance(case.body, dict) else ())
    return not TOGETHER & keys and not any(keys >= pair for pair in APART)


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Make each valid idempotency key a new one: it stands for one request only."""
    key = case.headers.get("idempotency-key", "") if case.headers else ""
    if 0 < len(key) <= LONGEST_KEY:
        number = f"{next(NUMBERS)}-"
        case.headers["idempotency-key"] = number + key[: LONGEST_KEY - len(number)]
