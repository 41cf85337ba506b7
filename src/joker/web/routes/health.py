"""``/health``: whether the process lives, and whether a joke asked for now would be told."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from joker.web.dependencies import TheReadiness
from joker.web.errors import describe_problem

router = APIRouter(prefix="/health", tags=["operation"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


@router.get("/live", summary="Is the process alive?")
async def live() -> Health:
    """Answer; a process that does not should be started again."""
    return Health()


@router.get(
    "/ready",
    summary="Would a joke be told now?",
    responses={503: describe_problem("No: the problem says why.")},
)
async def ready(readiness: TheReadiness) -> Health:
    """Answer 200 if the queue answers and a joke was told in the last minute, or is told now."""
    obstacle = await readiness.find_obstacle()
    if obstacle is not None:
        raise HTTPException(503, obstacle)
    return Health()
