"""Static files of the pages, at addresses that change with their content, so browsers cache them.

`joker.web.html` puts the addresses into the pages, `joker.web.routes.page` serves the files.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope


class Files(StaticFiles):
    """Files cached for a year at the address of their content; at others, checked every time."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return a file, or 304 to a client that has it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        # During an update, another version may be requested; this one must not be cached for it.
        current = scope["query_string"] == _digest(os.fspath(full_path)).encode()
        response.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if current else "no-cache"
        )
        return response


# Swagger UI comes with the package fastapi-offline.
_DOCS = Files(packages=[("fastapi_offline", "static")])
_PAGE = Files(packages=[("joker.web", "page/static")])
MOUNTS = [Mount("/static/docs", _DOCS), Mount("/static", _PAGE)]


def locate(name: str) -> str:
    """Return the address of a static file, such as ``page.js`` or ``docs/swagger-ui.css``."""
    files, path = (_DOCS, name[5:]) if name.startswith("docs/") else (_PAGE, name)
    return f"/static/{name}?{_digest(files.lookup_path(path)[0])}"


@cache
def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
