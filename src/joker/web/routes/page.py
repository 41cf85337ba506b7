"""``/``, ``/docs`` and ``/redoc``: the pages, without files from other servers."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response

from joker.web.html import load_template, render_page
from joker.web.security import require_key

router = APIRouter(include_in_schema=False)


@router.get("/", dependencies=[Depends(require_key)])
async def page(request: Request) -> Response:
    """Show the page."""
    return render_page(request)


@router.get("/docs")
async def docs() -> Response:
    """Show the API with Swagger UI."""
    return HTMLResponse(load_template("docs.html").render())


@router.get("/redoc")
async def redoc() -> Response:
    """Show the API with ReDoc."""
    return HTMLResponse(load_template("redoc.html").render())
