"""Registering a model: a pyfunc with signature, example, requirements and card, loaded and tried before it counts.

The pyfunc's code is `serving_model.py`, its data the `model/` folder that the evaluation left, with a manifest of
hashes that every load checks. The folder describes itself: `signature.json` names the columns that go in and come out
and the parameters (MLflow's own JSON for them), `example.parquet` is a question that it must be able to answer. What it
was evaluated on (`eval_values`) lies beside it in its run, for the gate. One version is one folder: what has to change
together is in it together.
"""

from __future__ import annotations

import json
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from infra.errors import DataError
from infra.lake import Lake
from infra.profile import CHECKOUT, Profile
from registry import card
from registry.aliases import sync_aliases
from registry.evaluation_artifacts import EVALUATION, VALUES
from registry.gate_file import Gate, load_gate
from registry.promotions import Promotions
from registry.runs import StageRun, file_hash, snapshots, tag
from registry.store import connect
from registry.values import read_values

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

_CODE = Path(__file__).with_name("serving_model.py")
_SIGNATURE, _EXAMPLE = "signature.json", "example.parquet"
_REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors", "numpy", "pandas", "pyarrow", "pyyaml")
_DESCRIPTION = 5000
_ABOUT = (
    "The aliases `champion` and `challenger` follow the ledger of promotions (`python -m registry history`): "
    "to change them, use the DAG `promote` or `python -m registry`, not this page."
)


def register(profile: Profile, model: str, run_id: str, spec_dir: Path, out_dir: Path) -> str:
    """Register what the evaluation stage of run `run_id` left in `out_dir`; returns the version. Safe to call again.

    Also tags the lake's snapshots behind the model (`model-<name>-v<version>`), so that they never expire.

    Raises:
        DataError: the folder lacks the model, its description or its values, or the packed model does not answer its
            own example.
    """
    gate = load_gate(model)
    client = connect(profile)
    stage = StageRun.read(spec_dir, out_dir)
    found = client.search_model_versions(f"name='{model}' and run_id='{run_id}'")
    version = str(found[0].version) if found else _pack(client, gate, run_id, stage)
    read = snapshots(client, run_id)
    lake, name = Lake(profile), f"model-{model}-v{version}"
    for table, ids in read.items():
        for snapshot in ids:
            lake.tag(table, snapshot, name if len(ids) == 1 else f"{name}-{snapshot}")
    client.set_model_version_tag(model, version, tag("snapshots"), json.dumps({t: sorted(s) for t, s in read.items()}))
    text = card.write(profile, client, gate, version)
    client.log_text(run_id, text, f"{EVALUATION}/model_card.md")
    if len(text) > _DESCRIPTION:  # MLflow's column for descriptions is limited; the whole card is in the run
        more = f"\n\n(The whole card: `{EVALUATION}/model_card.md` in the run.)"
        text = text[: _DESCRIPTION - len(more)] + more
    client.update_model_version(model, version, description=text)
    client.update_registered_model(model, description=_ABOUT)
    sync_aliases(client, Promotions(profile), model)
    return version


def unpack(profile: Profile, model: str, version: str, root: Path) -> Path:
    """The folder that a version was packed from, copied to `<root>/v<version>` unless it is there; returns it.

    Raises:
        DataError: a file is not the one that was registered, or is gone.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    connect(profile)
    folder = root / f"v{version}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root) as scratch:
        place = f"models:/{model}/{version}/artifacts"
        try:
            packed = Path(mlflow.artifacts.download_artifacts(artifact_uri=place, dst_path=scratch))
        except (MlflowException, OSError) as error:
            raise _gone(place, str(error)) from error
        if not (packed / "model").is_dir() or not (packed / "manifest.json").is_file():
            raise _gone(place, f"only {', '.join(sorted(f.name for f in packed.iterdir())) or 'nothing'} is there")
        if _manifest(packed / "model") != json.loads((packed / "manifest.json").read_text()):
            raise DataError("The files of a registered version have changed.", where=place, do="Register it anew.")
        (packed / "model").rename(folder)
    return folder


def _gone(place: str, why: str) -> DataError:
    return DataError(
        "The packed files of a registered version are gone.",
        where=place,
        why=why,
        do='Restore the folder of artifacts, or go back: python -m registry rollback --reason "..."',
    )


def _pack(client: MlflowClient, gate: Gate, run_id: str, stage: StageRun) -> str:
    """Log the pyfunc, try it, and only then give it a version: what has a version can answer."""
    import mlflow

    files = [stage.out / file for file in stage.result.get("tables", {}).get(VALUES, [])]
    if not files:
        raise DataError(f"The evaluation left no {VALUES}.", where=str(stage.out), do="Register an evaluation stage.")
    folder = stage.out / "model"
    if not folder.is_dir():
        raise DataError("There is no model to register.", where=str(folder), do="Run the evaluation stage.")
    signature, example = _description(folder)
    read_values(files)  # what cannot be read is found now, not when the gate is held
    for file in files:
        client.log_artifact(run_id, str(file), f"{EVALUATION}/{VALUES}")
    with TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id):
        manifest = Path(scratch) / "manifest.json"
        manifest.write_text(json.dumps(_manifest(folder)))
        info = mlflow.pyfunc.log_model(
            name=gate.model,
            python_model=str(_CODE),
            artifacts={"model": str(folder), "manifest": str(manifest)},
            code_paths=[str(CHECKOUT / room) for room in ("training", "common")],
            model_config={"serve": f"training.{stage.spec['system']}.serve"},
            signature=signature,
            input_example=example,
            pip_requirements=[f"{name}=={installed(name).split('+')[0]}" for name in _REQUIREMENTS],
        )
    _try(info.model_uri, example, signature.outputs.input_names())
    return str(mlflow.register_model(info.model_uri, gate.model).version)


def _description(folder: Path) -> tuple[ModelSignature, pd.DataFrame]:
    """What a model folder says of itself.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature

    try:
        declared = json.loads((folder / _SIGNATURE).read_text())
        signature = ModelSignature.from_dict({key: json.dumps(value) for key, value in declared.items()})
        example = pd.read_parquet(folder / _EXAMPLE)
    except (OSError, ValueError, KeyError, AttributeError, MlflowException) as error:
        raise DataError(
            "The model folder does not describe itself.",
            where=str(folder),
            why=f"{type(error).__name__}: {error}",
            do=f"Have the evaluation leave {_SIGNATURE} (inputs, outputs, params) and {_EXAMPLE} in it.",
        ) from error
    if not len(example):
        raise DataError("The example of the model is empty.", where=str(folder / _EXAMPLE), do="Leave rows in it.")
    return signature, example


def _try(uri: str, example: pd.DataFrame, promised: list[str]) -> None:
    """Ask the packed model, as a user would, its own example: one row for each, with something in every column."""
    import mlflow

    answer = mlflow.pyfunc.load_model(uri).predict(example)
    missing = [name for name in promised if name not in answer]
    empty = [name for name in promised if name in answer and any(map(_nothing, answer[name]))]
    if len(answer) != len(example) or missing or empty:
        faults = [f"there is no column {name}" for name in missing] + [f"{name} is empty in a row" for name in empty]
        raise DataError(
            "The packed model does not answer its own example.",
            where=uri,
            why="; ".join([f"{len(example)} rows were asked, {len(answer)} answered", *faults]),
            do="Load the model folder by hand and ask it its example: this is a fault of the evaluation or of `serve`.",
        )


def _nothing(cell: Any) -> bool:
    return cell is None or (len(cell) == 0 if hasattr(cell, "__len__") else bool(pd.isna(cell)))


def _manifest(folder: Path) -> dict[str, str]:
    """File (below `folder`) to sha256."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file_hash(file) for file in files}
