"""A shop of hints on a real lake and registry: its catalogue delivered, its models registered and in use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from infra.contracts import arrow_schema, load_contract
from infra.profile import Profile
from registry import decisions, packaging, runs
from tests.lake_kit import put
from tests.registry_kit import GATE, finish_stage
from tests.unit.training.query_rec import shop_kit


def put_rows(profile: Profile, table: str, lines: Sequence[dict[str, Any]]) -> None:
    """Rows of a table, unjudged; what a row leaves out is null."""
    schema = pa.schema([field.with_nullable(True) for field in arrow_schema(load_contract(table))])
    put(profile, table, pa.Table.from_pylist(list(lines), schema=schema))


def deliver(profile: Profile, day: date, without: str = "") -> None:
    """The catalogue, without what is of a kind."""
    items = [row for row in shop_kit.items().to_pylist() if not (without and row["item_id"].startswith(without))]
    put_rows(profile, "items", [{"snapshot_date": day, "source": "shop", **row} for row in items])


def put_in_use(profile: Profile, folder: Path, model: str, packed: Path) -> str:
    """A packaged model as a version of the real registry, promoted; its version."""
    (folder.parent / "gates" / f"{model}.yaml").write_text(
        yaml.safe_dump({**GATE, "model": model, "system": "query_rec"})
    )
    out = finish_stage(folder, "evaluate", snapshot=1)
    shutil.rmtree(out / "model")
    shutil.copytree(packed, out / "model")
    spec = json.loads((out / "spec.json").read_text())
    (out / "spec.json").write_text(json.dumps({**spec, "system": "query_rec", "tables": {}}))
    version = packaging.register(profile, model, runs.log_stage(profile, out, out), out, out)
    decisions.promote(profile, model, version, who="ada", override=True, reason="of a test")
    return version
