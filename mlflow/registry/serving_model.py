"""The served model as MLflow loads it: a table in, a table out, as the model's own `signature.json` says.

MLflow copies this file into the model and runs it at load ("models from code"), so no pickle is ever written or read.
The code of `training`, which travels with the model, holds what answers: `load` of `training.<system>.serve`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class FolderModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A model folder, answered for by the code of the system that made it."""

    def load_context(self, context: Any) -> None:
        """Load the model's folder, after its files were found to be the ones that were registered."""
        folder = Path(context.artifacts["model"])
        _verify(folder, json.loads(Path(context.artifacts["manifest"]).read_text()))
        self.loaded = importlib.import_module(context.model_config["serve"]).load(folder)

    # MLflow checks these names only at load, and only these three pass.
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row for each row of `model_input`."""
        answer: pd.DataFrame = self.loaded.predict(model_input, params or {})
        return answer


def _verify(folder: Path, manifest: dict[str, str]) -> None:
    for name, expected in manifest.items():
        with (folder / name).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != expected:
            raise ValueError(f"{folder / name} is not the file that was registered: restore it or register anew")


mlflow.models.set_model(FolderModel())
