"""Registering a model: a pyfunc with signature, example, requirements and card, loaded and tried before it counts.

The pyfunc's code is `serving_model.py`, its data the `model/` folder that the evaluation left, with a manifest of
hashes that every load checks. What it was evaluated on (`eval_ranks`) lies beside it in its run, for the gate.
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
from registry.evaluation_artifacts import EVALUATION, RANKS
from registry.gate_file import Gate, load_gate
from registry.promotions import Promotions
from registry.runs import StageRun, file_hash, snapshots, tag
from registry.store import connect
from registry.values import of_model, read_ranks

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CODE = Path(__file__).with_name("serving_model.py")
_REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors", "numpy", "pandas", "pyarrow", "pyyaml")
_EXAMPLE_K = 3
_DESCRIPTION = 5000
_ABOUT = (
    "The aliases `champion` and `challenger` follow the ledger of promotions (`python -m registry history`): "
    "to change them, use the DAG `promote` or `python -m registry`, not this page."
)


def register(profile: Profile, model: str, run_id: str, spec_dir: Path, out_dir: Path) -> str:
    """Register what the evaluation stage of run `run_id` left in `out_dir`; returns the version. Safe to call again.

    Also tags the lake's snapshots behind the model (`model-<name>-v<version>`), so that they never expire.

    Raises:
        DataError: the folder lacks the model or its ranks, or the packed model does not answer its own example.
    """
    gate = load_gate(model)
    client = connect(profile)
    stage = StageRun.read(spec_dir, out_dir)
    version = _version_of(client, model, run_id) or _pack(client, gate, run_id, stage)
    read = snapshots(client, run_id)
    _keep_snapshots(Lake(profile), read, f"model-{model}-v{version}")
    client.set_model_version_tag(model, version, tag("snapshots"), json.dumps({t: sorted(s) for t, s in read.items()}))
    text = card.write(profile, client, gate, version)
    client.log_text(run_id, text, f"{EVALUATION}/model_card.md")
    client.update_model_version(model, version, description=_fitting(text))
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


def _fitting(text: str) -> str:
    """MLflow's column for descriptions is limited; the whole card is in the run."""
    more = f"\n\n(The whole card: `{EVALUATION}/model_card.md` in the run.)"
    return text if len(text) <= _DESCRIPTION else text[: _DESCRIPTION - len(more)] + more


def _version_of(client: MlflowClient, model: str, run_id: str) -> str | None:
    found = client.search_model_versions(f"name='{model}' and run_id='{run_id}'")
    return str(found[0].version) if found else None


def _pack(client: MlflowClient, gate: Gate, run_id: str, stage: StageRun) -> str:
    """Log the pyfunc, try it, and only then give it a version: what has a version can answer."""
    import mlflow

    folder, ranks = stage.out / "model", _ranks_files(stage)
    if not folder.is_dir():
        raise DataError("There is no model to register.", where=str(folder), do="Run the evaluation stage.")
    example = _example(gate, ranks)
    for file in ranks:
        client.log_artifact(run_id, str(file), f"{EVALUATION}/{RANKS}")
    with TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id):
        manifest = Path(scratch) / "manifest.json"
        manifest.write_text(json.dumps(_manifest(folder)))
        info = mlflow.pyfunc.log_model(
            name=gate.model,
            python_model=str(_CODE),
            artifacts={"model": str(folder), "manifest": str(manifest)},
            code_paths=[str(CHECKOUT / "training")],
            model_config={"recommender": f"training.{stage.spec['system']}.serve:Recommender"},
            signature=_signature(),
            input_example=example,
            pip_requirements=[f"{name}=={installed(name).split('+')[0]}" for name in _REQUIREMENTS],
        )
    _try(info.model_uri, example)
    return str(mlflow.register_model(info.model_uri, gate.model).version)


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, DataType

    ids = Array(DataType.string)
    return ModelSignature(
        inputs=Schema([ColSpec(ids, "history")]),
        outputs=Schema([ColSpec(ids, "items"), ColSpec(Array(DataType.double), "scores")]),
        params=ParamSchema([ParamSpec("k", DataType.long, 10)]),
    )


def _example(gate: Gate, ranks: list[Path]) -> pd.DataFrame:
    """Two histories of items that the model is known to know: the targets that it ranked best."""
    rows = of_model(read_ranks(ranks), gate.evaluated_as, gate.split).sort_values("rank", kind="stable")
    items = [str(item) for item in dict.fromkeys(rows["item_id"])][:3]
    return pd.DataFrame({"history": [items, items[:1]]})


def _try(uri: str, example: pd.DataFrame) -> None:
    import mlflow

    answer = mlflow.pyfunc.load_model(uri).predict(example, params={"k": _EXAMPLE_K})
    lists = [list(items) for items in answer["items"]]
    if len(lists) != len(example) or any(len(set(items)) != _EXAMPLE_K for items in lists):
        raise DataError(
            "The packed model does not answer its own example.",
            where=uri,
            why=f"Asked for {_EXAMPLE_K} different items for each of {len(example)} histories, it gave {lists}.",
        )


def _ranks_files(stage: StageRun) -> list[Path]:
    files = stage.result.get("tables", {}).get(RANKS, [])
    if not files:
        raise DataError(f"The evaluation left no {RANKS}.", where=str(stage.out), do="Register an evaluation stage.")
    return [stage.out / file for file in files]


def _manifest(folder: Path) -> dict[str, str]:
    """File (below `folder`) to sha256."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file_hash(file) for file in files}


def _keep_snapshots(lake: Lake, read: dict[str, set[int]], name: str) -> None:
    for table, ids in read.items():
        for snapshot in ids:
            lake.tag(table, snapshot, name if len(ids) == 1 else f"{name}-{snapshot}")
