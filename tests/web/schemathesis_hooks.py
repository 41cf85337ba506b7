"""What schemathesis leaves out: combinations of parameters that are refused, which no schema can
express. Other tests have them."""

from __future__ import annotations

from typing import Any

import schemathesis

TOGETHER = {"best_of", "stream_options"}
APART = ({"safe", "exclude_categories"}, {"effort", "candidates"})


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Say whether a case is worth trying."""
    keys = set(case.query or ()) | set(case.body if isinstance(case.body, dict) else ())
    headers = {name.lower() for name in case.headers or ()}
    apart = not TOGETHER & keys and not any(keys >= pair for pair in APART)
    return apart and "idempotency-key" not in headers
