"""The original's stack, written for `benchmarks.original` from its description.

One FastAPI application puts each request into Celery over Redis and lets clients poll for the
result. Celery's default pool has a process per core, and each task is one `generate` call in 32-bit
floats for one joke. Two environment variables configure it: ``ORIGINAL_MODEL``, a model folder, and
``ORIGINAL_REDIS``, a URL.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals
from celery.result import AsyncResult
from fastapi import FastAPI
from pydantic import BaseModel

_REDIS = os.environ["ORIGINAL_REDIS"]

celery = Celery("original", broker=_REDIS, backend=_REDIS)
api = FastAPI()
_loaded: dict[str, Any] = {}


class Prompt(BaseModel):
    """The body of a request; the prompt is rendered in the model's template already."""

    prompt: str


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def load(**_: Any) -> None:
    """Load the model in each process of the pool."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = os.environ["ORIGINAL_MODEL"]
    _loaded["tokenizer"] = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(path)
    _loaded["model"] = model.float().eval()


@celery.task  # type: ignore[untyped-decorator]
def generate(prompt: str) -> dict[str, Any]:
    """Return a joke's text and the number of its tokens."""
    tokenizer = _loaded["tokenizer"]
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    output = _loaded["model"].generate(
        **inputs,
        do_sample=True,
        top_k=50,
        top_p=0.95,
        max_new_tokens=40,
        pad_token_id=tokenizer.eos_token_id,
    )
    drawn = output[0, inputs["input_ids"].shape[1] :]
    return {"text": tokenizer.decode(output[0]), "tokens": len(drawn)}


@api.post("/generate")
def submit(body: Prompt) -> dict[str, str]:
    """Submit a task."""
    return {"task_id": generate.delay(body.prompt).id}


@api.get("/result/{task_id}")
def read(task_id: str) -> dict[str, Any]:
    """Return a task's state and its result once there is one."""
    result = AsyncResult(task_id, app=celery)
    return {"state": result.state, "result": result.result if result.successful() else None}
