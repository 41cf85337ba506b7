"""HTTP: jokes over a queue, for people with a browser and for programs."""

from joker.web.app import create_app

__all__ = ["create_app"]
