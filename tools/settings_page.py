"""Print docs/settings.md, a table of every setting of the servers; ``make docs`` keeps it."""

from __future__ import annotations

from joker.settings import Settings

HEAD = """\
# Settings

`joker serve`, `joker worker` and the Celery app read these variables. An option of the command line
wins over the variable; an empty variable means none. `joker doctor` shows what is set and refuses
what cannot be used.

| Variable | Default | Meaning |
|---|---|---|
"""
TAIL = """
Two more are read by libraries: `FORWARDED_ALLOW_IPS`, the proxies whose `X-Forwarded-For` uvicorn
believes, and `MLFLOW_TRACKING_URI`, where training records its runs (by default `mlflow.db` in the
current folder).
"""


def page() -> str:
    """Return the page."""
    prefix = str(Settings.model_config["env_prefix"])
    rows = [
        f"| `{prefix}{name.upper()}` | {_shown(field.default)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    ]
    return HEAD + "".join(rows) + TAIL


def _shown(default: object) -> str:
    return "none" if default in (None, ()) else f"`{default}`"


if __name__ == "__main__":
    print(page(), end="")
