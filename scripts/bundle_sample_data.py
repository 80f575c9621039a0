"""Rebuild `spark_jobs/sample_data/landing` from the public data sets in the folder that PLUMBLINE_SHARED_DATA names.

The same input gives the same rows; `NOTICE` says where each set comes from and under which licence it is bundled.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import PlumblineError, exit_with_reason
from infra.profile import CHECKOUT

LANDING = CHECKOUT / "spark_jobs" / "sample_data" / "landing"
ESCI_GRADES = {"E": 3.0, "S": 2.0, "C": 1.0, "I": 0.0}


def main() -> int:
    """Write all landing files."""
    source = _source()
    for table, build in (("events", events), ("items", items), ("judgments", judgments), ("intents", intents)):
        for name, frame in build(source).items():
            _write(frame, table, name)
    for name, frame in queries(source).items():
        _write(frame, "queries", name)
    return 0


def events(source: Path) -> dict[str, pd.DataFrame]:
    """Office interactions as reviews, one file a year. A user's number is the rank of the pseudonymous reviewer id."""
    raw = pd.read_parquet(source / "amazon-office" / "interactions.parquet")
    raw["user"] = raw["user_id"].rank(method="dense").astype(int).astype(str)
    raw = raw.sort_values(["event_time", "user", "item_id", "rating"], kind="stable")
    frame = pd.DataFrame(
        {
            "user_id": raw["user"],
            "item_id": raw["item_id"].astype(str),
            "event_time": raw["event_time"],
            "event_type": "review",
            "rating": raw["rating"],
        }
    )
    years = frame["event_time"].dt.year
    return {f"office-{year}.parquet": frame[years == year] for year in sorted(years.unique())}


def items(source: Path) -> dict[str, pd.DataFrame]:
    """Catalogues: Office (keys of the events), ESCI and Chorus products (prefixed)."""
    return {
        "office.parquet": _office_items(source),
        "esci.parquet": _esci_items(source),
        "chorus.parquet": _chorus_items(source),
    }


def judgments(source: Path) -> dict[str, pd.DataFrame]:
    """Grades of query-item pairs in one long form: ESCI labels; Chorus final grades and its three raters."""
    raw = pd.read_parquet(source / "esci-us-150" / "judgments.parquet")
    esci = pd.DataFrame(
        {
            "source": "esci",
            "query": raw["query"],
            "item_id": "esci-" + raw["asin"],
            "rater": "esci",
            "grade": raw["esci_label"].map(ESCI_GRADES),
            "label": raw["esci_label"],
        }
    )
    final = pd.read_parquet(source / "chorus-icecat" / "ratings.parquet").assign(rater="final")
    individual = pd.read_parquet(source / "chorus-icecat" / "ratings_individual.parquet")
    parts = [final] + [
        individual[["query", "docid"]].assign(rating=individual[f"agent_{n}_rating"], rater=f"rater-{n}")
        for n in (1, 2, 3)
    ]
    raw = pd.concat(parts, ignore_index=True)
    chorus = pd.DataFrame(
        {
            "source": "chorus",
            "query": raw["query"],
            "item_id": "chorus-" + raw["docid"],
            "rater": raw["rater"],
            "grade": raw["rating"].astype(float),
            "label": None,
        }
    )
    return {"esci.parquet": esci, "chorus.parquet": chorus}


def intents(source: Path) -> dict[str, pd.DataFrame]:
    """Help-desk intents: ABCD guidelines (one row an intent) and Bitext utterances with responses."""
    raw = pd.read_parquet(source / "bitext-support-intents" / "utterances.parquet")
    bitext = pd.DataFrame(
        {
            "source": "bitext",
            "text_id": [f"bitext-{n}" for n in range(1, len(raw) + 1)],
            "kind": "utterance",
            "category": raw["category"].str.lower(),
            "intent": raw["intent"],
            "text": raw["instruction"],
            "response": raw["response"],
        }
    )
    return {"abcd.jsonl": _abcd(source), "bitext.parquet": bitext}


def queries(source: Path) -> dict[str, pd.DataFrame]:
    """Query texts: ESCI, and WANDS with the product class."""
    esci = pd.read_parquet(source / "search-queries" / "esci_queries_4000.parquet")
    wands = pd.read_parquet(source / "search-queries" / "wands_queries.parquet")
    return {
        "esci.csv": pd.DataFrame({"source": "esci", "query": esci["query_string"]}),
        "wands.csv": pd.DataFrame({"source": "wands", "query": wands["query"], "query_class": wands["query_class"]}),
    }


def _office_items(source: Path) -> pd.DataFrame:
    raw = pd.read_parquet(source / "amazon-office" / "items.parquet")
    return pd.DataFrame(
        {
            "item_id": raw["item_id"].astype(str),
            "source": "office",
            "title": raw["title"],
            "description": raw["description"].map(_paragraphs),
            "brand": raw["brand"],
        }
    )


def _esci_items(source: Path) -> pd.DataFrame:
    raw = pd.read_parquet(source / "esci-us-150" / "products.parquet")
    details = raw[["color", "rating", "rating_count", "is_book"]].rename(
        columns={"rating": "stars", "rating_count": "stars_count"}
    )
    return pd.DataFrame(
        {
            "item_id": "esci-" + raw["asin"],
            "source": "esci",
            "title": raw["title"],
            "description": raw["description"],
            "features": raw["bullet_points"],
            "brand": raw["brand"],
            "category": raw["category"].map(lambda path: " > ".join(path)),
            "price": raw["price"],
            "attributes": [_json(row) for row in details.to_dict("records")],
        }
    )


def _chorus_items(source: Path) -> pd.DataFrame:
    raw = pd.read_parquet(source / "chorus-icecat" / "products.parquet")
    released = raw["date_released"].str[:10]
    attributes = [
        _json({**json.loads(attrs or "{}"), "date_released": day})
        for attrs, day in zip(raw["attrs_json"], released, strict=True)
    ]
    return pd.DataFrame(
        {
            "item_id": "chorus-" + raw["id"],
            "source": "chorus",
            "title": raw["title"],
            "description": raw["short_description"],
            "features": raw["name"],
            "brand": raw["supplier"],
            "price": raw["price"] / 100,
            "attributes": attributes,
        }
    )


def _abcd(source: Path) -> pd.DataFrame:
    folder = source / "abcd-kb"
    guidelines = json.loads((folder / "guidelines.json").read_text())
    actions = json.loads((folder / "kb.json").read_text())
    flows = json.loads((folder / "ontology.json").read_text())["intents"]["subflows"]
    by_title = {title.lower().replace("-", " ").replace(" ", "_"): flow for title, flow in guidelines.items()}
    # The guidelines title each sub-flow; the ontology names it. Both list them in the same order.
    rows = [
        {
            "source": "abcd",
            "text_id": f"abcd-{flow}-{intent}",
            "kind": "guideline",
            "category": flow,
            "intent": intent,
            "text": _guideline_text(title, guide),
            "actions": json.dumps(actions[intent]),
        }
        for flow, names in flows.items()
        for intent, (title, guide) in zip(names, by_title[flow]["subflows"].items(), strict=True)
    ]
    return pd.DataFrame(rows)


def _guideline_text(title: str, guide: dict[str, Any]) -> str:
    steps = [line for step in guide["actions"] for line in (step["text"], *step["subtext"])]
    return "\n".join([title, *guide["instructions"], *steps])


def _paragraphs(text: str) -> str:
    """The source wrote lists of paragraphs as Python text, but did not escape the quotes in them: cut at the seams."""
    return re.sub(r"""['"], ['"]""", "\n", text.removeprefix("[").removesuffix("]").strip("'\""))


def _json(values: dict[str, Any]) -> str:
    return json.dumps({k: v for k, v in values.items() if not pd.isna(v)}, ensure_ascii=False, sort_keys=True)


def _write(frame: pd.DataFrame, table: str, name: str) -> None:
    path = LANDING / table / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        arrow = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        pq.write_table(arrow, path, compression="zstd", compression_level=19, coerce_timestamps="us")
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{_json(row)}\n" for row in frame.to_dict("records")))
    else:
        frame.to_csv(path, index=False, lineterminator="\n")
    sys.stdout.write(f"{path.relative_to(CHECKOUT)}: {len(frame)} rows, {path.stat().st_size / 1e6:.2f} MB\n")


def _source() -> Path:
    named = os.environ.get("PLUMBLINE_SHARED_DATA")
    if not named or not (Path(named) / "amazon-office").is_dir():
        raise PlumblineError(
            "The public data sets are not there.",
            where=str(named),
            do="Set PLUMBLINE_SHARED_DATA to the folder that holds amazon-office and the others.",
        )
    return Path(named)


if __name__ == "__main__":
    exit_with_reason(main)
