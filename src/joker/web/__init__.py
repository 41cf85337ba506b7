"""HTTP: the page and the API, which submit jobs to a queue."""

from joker.web.app import create_app

__all__ = ["create_app"]
