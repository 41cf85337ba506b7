"""A model folder as an MLflow pyfunc: a column of prompts in, a joke for each out.

MLflow stores this file next to the folder ("models from code"), so nothing is pickled. It runs
the file when a model is logged, loaded or served.
"""

from __future__ import annotations

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from joker.core.errors import InputError
from joker.core.joke import Sampling
from joker.core.record import fields_of
from joker.generation.request import candidates_of
from joker.library import Joker


class JokerModel(PythonModel):  # type: ignore[misc]  # MLflow is untyped here
    """Tells one joke for each row's ``prompt``; the HTTP API's other options are parameters."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the logged model folder."""
        self._joker = Joker(context.artifacts["folder"])

    # MLflow takes a type hint on the input for a schema; the schema is given when logging.
    def predict(  # type: ignore[no-untyped-def]
        self, context: PythonModelContext, model_input, params: dict[str, Any] | None = None
    ) -> list[dict[str, str]]:
        """Return a question and an answer for each prompt, by default as ``joker serve`` does."""
        options = dict(params or {})
        seed, effort = options.pop("seed", None), options.pop("effort", None)
        if effort is not None:
            if options.get("candidates") is not None:
                raise InputError("'effort' sets 'candidates'; send only one of them")
            options["candidates"] = candidates_of(effort)
        sampling = Sampling(
            **{name: options.pop(name) for name in fields_of(Sampling) if name in options}
        )
        return [
            {"question": joke.question, "answer": joke.answer}
            for row, prompt in enumerate(model_input["prompt"])
            for joke in self._joker.tell(
                str(prompt),
                seed=None if seed is None else int(seed) + row,
                sampling=sampling,
                **options,
            )
        ]


set_model(JokerModel())
