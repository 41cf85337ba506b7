import json
import logging

from joker.core.logs import JsonLines


def test_a_line_stays_one_line() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 1, "a\nb %s", ("é",), None)
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "a\nb é"
