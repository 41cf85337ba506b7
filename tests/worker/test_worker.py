from __future__ import annotations

import json
import subprocess
import sys

import pytest

from joker.core.errors import ConfigError
from joker.settings import load_settings
from joker.worker import run_worker

TRAINING = ["torch", "transformers", "mlflow", "pyarrow"]


def test_a_worker_without_a_broker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOKER_BROKER", raising=False)
    opened: list[str] = []
    with pytest.raises(ConfigError, match="--broker"):
        run_worker(load_settings(), lambda: opened.append("model"))  # type: ignore[arg-type, return-value]
    assert opened == []


@pytest.mark.integration
def test_serving_loads_nothing_that_only_training_needs() -> None:
    code = f"""
import json, sys
import joker.worker, joker.jobs.celery_redis
from joker.compose import open_teller
from joker.settings import load_settings
open_teller(load_settings(), shared=True)
print(json.dumps([name for name in {TRAINING} if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
