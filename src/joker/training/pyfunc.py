"""A model folder as an MLflow pyfunc: a column of prompts in, a joke for each out.

MLflow stores this file itself beside the folder ("models from code"), so nothing is
pickled. It is run when a logged model is loaded or served.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from joker.core.fingerprints import Fingerprints
from joker.core.model_folder import ModelFolder
from joker.engines import open_engine
from joker.generation.teller import DEFAULT_CANDIDATES, Teller


class JokerModel(PythonModel):  # type: ignore[misc]  # MLflow is untyped here
    """Tells one joke for each row's ``prompt``; ``seed`` is a parameter."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the model folder that was logged with the run."""
        folder = ModelFolder.open(Path(context.artifacts["folder"]))
        self._teller = Teller(open_engine(folder), fingerprints=Fingerprints.read(folder.path))

    # MLflow takes a type hint on the input for a schema; the schema is given when logging.
    def predict(  # type: ignore[no-untyped-def]
        self, context: PythonModelContext, model_input, params: dict[str, Any] | None = None
    ) -> list[dict[str, str]]:
        """Return ``question`` and ``answer`` for each prompt."""
        seed = int((params or {}).get("seed", 0))
        told = []
        for row, prompt in enumerate(model_input["prompt"]):
            (joke,) = self._teller.tell(str(prompt), seed=seed + row, candidates=DEFAULT_CANDIDATES)
            told.append({"question": joke.joke.question, "answer": joke.joke.answer})
        return told


set_model(JokerModel())
