from __future__ import annotations

from pathlib import Path

import pytest

from dockerfile import DockerfileError, expand, parse, read_pairs

OURS = Path(__file__).parents[2] / "deploy" / "Dockerfile"


def test_steps_are_read_in_order_with_their_flags() -> None:
    stages = parse(
        "# A comment\n"
        "FROM debian AS first\n"
        "RUN --mount=type=cache,target=/cache \\\n"
        "    # inside\n"
        "    one \\\n"
        "    two\n"
        "\n"
        "from first\n"
        "COPY --from=first /a /b\n"
    )
    assert [(stage.name, stage.base) for stage in stages.values()] == [
        ("first", "debian"),
        ("1", "first"),
    ]
    run, copy = stages["first"].steps[0], stages["1"].steps[0]
    assert (run.line, run.name, run.text) == (3, "RUN", "one two")
    assert run.flag("mount") == "type=cache,target=/cache"
    assert (copy.flag("from"), copy.flag("chown"), copy.text) == ("first", None, "/a /b")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no FROM"),
        ("RUN one", "line 1: RUN"),
        ("FROM debian\nHEALTHCHECK NONE", "line 2: HEALTHCHECK"),
        ("FROM --platform=x a b c", "line 1: cannot read"),
        ("FROM debian\nRUN one \\", "line 2: .*backslash"),
    ],
)
def test_what_is_not_understood_is_refused_by_line(text: str, named: str) -> None:
    with pytest.raises(DockerfileError, match=named):
        parse(text)


def test_variables_are_put_in_where_they_are_known() -> None:
    assert expand("$HOME/${NAME}/$OTHER", {"HOME": "/h", "NAME": "n"}) == "/h/n/$OTHER"
    assert read_pairs('PATH=/opt:$PATH GREETING="good day"', {"PATH": "/bin"}) == {
        "PATH": "/opt:/bin",
        "GREETING": "good day",
    }


def test_no_image_of_ours_runs_as_root_or_holds_a_secret() -> None:
    stages = parse(OURS.read_text(encoding="utf-8"))
    for target in ("web", "web-maintained", "worker", "mlflow"):
        names = [step.name for step in stages[target].steps]
        assert names.index("USER") < names.index("CMD")
        users = [step.text for step in stages[target].steps if step.name == "USER"]
        assert users[-1] in ("unit", "joker")
    assert not any(
        word in step.text.lower()
        for stage in stages.values()
        for step in stage.steps
        if step.name in ("ARG", "ENV", "COPY")
        for word in ("password", "secret", "key")
    )
