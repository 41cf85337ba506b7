"""Static assets of the pages, at URLs with a content hash, so that browsers can cache them."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope


class VersionedFiles(StaticFiles):
    """Files that browsers cache for a year if the query is their content hash."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return a file, or 304 if the client has it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        # During an update, a page of another version may request this file.
        current = scope["query_string"] == _digest(os.fspath(full_path)).encode()
        response.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if current else "no-cache"
        )
        return response


# Swagger UI comes with the package fastapi-offline.
_DOCS = VersionedFiles(packages=[("fastapi_offline", "static")])
_PAGE = VersionedFiles(packages=[("joker.web", "page/static")])
MOUNTS = [Mount("/static/docs", _DOCS), Mount("/static", _PAGE)]


def static_url(name: str) -> str:
    """Return the URL of a static file such as ``page.js`` or ``docs/swagger-ui.css``."""
    files, path = (_DOCS, name[5:]) if name.startswith("docs/") else (_PAGE, name)
    return f"/static/{name}?{_digest(files.lookup_path(path)[0])}"


@cache
def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
