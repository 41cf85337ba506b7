"""What schemathesis leaves out: parts that are refused for how they fit together, which no schema
can say. Other tests have them."""

from __future__ import annotations

from typing import Any

import schemathesis

TOGETHER = {"best_of", "stream_options"}


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Say whether a case is worth trying."""
    keys = case.body.keys() if isinstance(case.body, dict) else set()
    headers = {name.lower() for name in case.headers or ()}
    return "idempotency-key" not in headers and not TOGETHER & keys
