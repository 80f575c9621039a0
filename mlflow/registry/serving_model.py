"""The served model as MLflow loads it: a table of histories in, a table of recommended items out.

MLflow copies this file into the model and runs it at load ("models from code"), so no pickle is ever written or read.
The code of `training`, which travels with the model, holds what answers: `training.<system>.serve.Recommender`.
"""

from __future__ import annotations

import hashlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class NextItemModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """In: the column `history` (item ids, oldest first), and `user_id` where the model knows users.

    Out: `items` (ids, best first) and their `scores`.
    """

    def load_context(self, context: Any) -> None:
        """Load the model's folder, after its files were found to be the ones that were registered."""
        folder = Path(context.artifacts["model"])
        _verify(folder, json.loads(Path(context.artifacts["manifest"]).read_text()))
        self.recommender = pkgutil.resolve_name(context.model_config["recommender"]).load(folder)

    # MLflow checks these names only at load, and only these three pass.
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The top `params["k"]` items (10 by default) for each history, and their log-probabilities."""
        histories = [[str(item) for item in history] for history in model_input["history"]]
        users = [str(user) for user in model_input["user_id"]] if "user_id" in model_input else None
        lists = self.recommender.recommend(histories, int((params or {}).get("k", 10)), users=users)
        items = [[item for item, _ in ranking] for ranking in lists]
        return pd.DataFrame({"items": items, "scores": [[score for _, score in ranking] for ranking in lists]})


def _verify(folder: Path, manifest: dict[str, str]) -> None:
    for name, expected in manifest.items():
        with (folder / name).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != expected:
            raise ValueError(f"{folder / name} is not the file that was registered: restore it or register anew")


mlflow.models.set_model(NextItemModel())
