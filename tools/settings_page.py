"""Print docs/settings.md, a table of all settings; ``make docs`` writes it."""

from __future__ import annotations

from joker.settings import Settings

HEAD = """\
# Settings

`joker` and the servers read these environment variables. A command-line option overrides its
variable. `joker doctor` checks the settings; an unknown variable that starts with `JOKER_` is
reported at start.

`JOKER_SECRETS_DIR` is a folder of files with one setting each, named like the variables in
lowercase, such as `joker_api_keys`. The environment overrides a file.

| Variable | Default | Meaning |
|---|---|---|
"""
TAIL = """
Libraries read others: `FORWARDED_ALLOW_IPS`, the proxies from which uvicorn trusts
`X-Forwarded-For` headers; `MLFLOW_TRACKING_URI`, where training records its runs (by
default `mlflow.db` in the current folder); and OpenTelemetry's, such as
`OTEL_EXPORTER_OTLP_ENDPOINT`, which turns on [traces](api.md#traces).
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
