import json
import logging
import os
import subprocess
import sys

import pytest

from joker.core.logs import JsonLines, PlainLines


def test_a_line_stays_one_line() -> None:
    record = logging.LogRecord("x", logging.ERROR, "", 1, "a\nb %s", ("é",), None)
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "a\nb é"


def test_a_plain_line_shows_the_fields_and_cannot_steer_a_terminal() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 1, "request", (), None)
    record.fields = {"status": 200, "method": "GET", "path": "/\x1b[31m"}
    line = PlainLines().format(record)
    assert line.endswith(r'INFO     request status=200 method="GET" path="/\u001b[31m"')


def test_a_request_that_a_stop_cuts_off_has_no_traceback_in_the_log() -> None:
    script = (
        "import asyncio, logging; from joker.core.logs import configure_logging\n"
        "configure_logging()\n"
        "for error in (asyncio.CancelledError(), OSError()):\n"
        "    logging.getLogger('uvicorn.error').error('in a request', exc_info=error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert "OSError" in json.loads(done.stderr)["exception"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_a_terminal_gets_plain_lines_and_a_file_gets_json() -> None:
    script = (
        "import logging; from joker.core.logs import configure_logging; configure_logging(); "
        "logging.getLogger('joker').info('ready')"
    )
    reader, terminal = os.openpty()
    subprocess.run([sys.executable, "-c", script], stderr=terminal, check=True)
    assert os.read(reader, 1000).decode().strip().endswith("INFO     ready")
    os.close(terminal)
    os.close(reader)
    written = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stderr
    assert json.loads(written)["message"] == "ready"


def test_lines_of_uvicorns_command_line_are_json_too() -> None:
    script = (
        "import logging, logging.config, uvicorn.config\n"
        "from joker.core.logs import configure_logging\n"
        "logging.config.dictConfig(uvicorn.config.LOGGING_CONFIG)\n"
        "configure_logging()\n"
        "logging.getLogger('uvicorn.error').info('started')\n"
        "logging.getLogger('uvicorn.access').info('a request, which has a line of its own')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b""
    assert json.loads(done.stderr)["message"] == "started"
