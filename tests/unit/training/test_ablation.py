"""The table over several seeds: means by hand, differences paired by sample, and runs that cannot be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.formulas import parse_formula
from registry.values import Bootstrap, difference, measure, pair, read_values
from training.__main__ import main
from training.ablation import compare, markdown, published_markdown, read_published, read_run
from training.core.errors import DataError
from training.core.metrics import METRICS, gains
from training.generative_rec.stages.evaluate import Config
from training.next_item.comparison import VALUES_SCHEMA, metrics_table

DAY = date(2018, 5, 9)
Ranks = Mapping[str, Sequence[int | None]]


def run(folder: Path, seed: int, ranks: Ranks, coverage: float = 0.5, choice: str | None = None) -> Path:
    """A finished evaluation: each model's rank of the truth for the samples of users u0, u1, ...; `choice`: of all."""
    out = folder / "evaluate"
    out.mkdir(parents=True)
    gained = {model: gains(np.array([rank or np.inf for rank in found])) for model, found in ranks.items()}
    lines = [
        {"system": "generative_rec", "model": model, "unit": f"u{n}", "sample": f"{DAY} i", "split": "time"}
        | {"slices": [], "name": name, "value": gained[model][n, METRICS.index(name)]}
        for model, found in ranks.items()
        for n in range(len(found))
        for name in Config().values
    ]
    pq.write_table(pa.Table.from_pylist(lines, schema=VALUES_SCHEMA), out / "values.parquet")
    nothing = {"slice": "all", "lo": None, "hi": None, "n": 1, "scored": 1}
    counts = [{"model": model, "metric": "coverage@10", "value": coverage, **nothing} for model in ranks]
    if choice:
        counts += [{"model": model, "metric": "choice", "value": 0.1, "reason": choice, **nothing} for model in ranks]
    pq.write_table(metrics_table(counts, "real", "time", DAY), out / "metrics.parquet")
    tables = {"eval_values": ["values.parquet"], "model_metrics": ["metrics.parquet"]}
    (out / "result.json").write_text(json.dumps({"tables": tables}))
    (out / "spec.json").write_text(json.dumps({"seed": seed, "system": "generative_rec"}))
    return folder


def test_a_row_is_the_mean_of_its_seeds_and_stands_beside_the_row_above(tmp_path: Path) -> None:
    runs = [
        read_run(run(tmp_path / "1", 1, {"sft": [1, None], "sp": [1, 3]}, coverage=0.2), "time"),
        read_run(run(tmp_path / "2", 2, {"sft": [3, None], "sp": [3, 3]}, coverage=0.4), "time"),
    ]
    sft, sp = compare(runs)
    assert sft.values["ndcg@10"].value == pytest.approx((1.0 + 0.5) / 4)  # a rank of 3 gains 1 / log2(4)
    assert sft.by_seed == pytest.approx((0.5, 0.5))  # of the headline, recall@10: one user of two
    assert sft.figures == pytest.approx({"coverage@10": 0.3})
    assert list(sft.values) == ["recall@10", "ndcg@10", "recall@5", "ndcg@5"]  # as the gate file shows them
    assert sft.above == {}
    assert sp.above["ndcg@10"].value == pytest.approx(0.25)
    assert (sp.above["recall@10"].lo, sp.above["recall@10"].hi) == (0.0, 1.0)  # one user of two gains a hit


def test_the_page_and_its_figures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(run(tmp_path / str(seed), seed, {"sft": [1, 2]})) for seed in (101, 102)]
    out = tmp_path / "results" / "office.md"
    assert main(["ablation", "--runs", *folders, "--out", str(out)]) == 0
    assert "2 test samples of 2 units, seeds 101, 102." in out.read_text()
    assert "| sft | 1.0000 [1.0000, 1.0000] |" in out.read_text()
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["seeds"] == [101, 102]
    assert figures["rows"][0]["values"]["recall@10"]["value"] == 1.0


def test_a_row_says_what_it_has_chosen_of_each_seed_that_chose_otherwise(tmp_path: Path) -> None:
    chosen = ("forward, reach 5", "both, reach 3", "forward, reach 5")
    runs = [run(tmp_path / str(n), n, {"covisit": [1, 2]}, choice=words) for n, words in enumerate(chosen)]
    (line,) = compare([read_run(folder, "time") for folder in runs])
    assert line.choice == "both, reach 3; forward, reach 5"
    out = tmp_path / "office.md"
    assert main(["ablation", "--runs", str(runs[0]), "--out", str(out)]) == 0
    assert "| covisit (forward, reach 5) | 1.0000" in out.read_text()


def test_rows_are_chosen_and_ordered(tmp_path: Path) -> None:
    found = read_run(run(tmp_path / "1", 1, {"sft": [1], "sp": [2], "grpo": [3]}), "time")
    sp, sft = compare([found], ("sp", "sft"))
    assert (sp.model, sft.model) == ("sp", "sft")
    assert sft.above["ndcg@10"].value == pytest.approx(1.0 - 1 / math.log2(3))
    with pytest.raises(DataError, match=r"(?s)no row 'dpo'.*sft, sp, grpo"):
        compare([found], ("dpo",))


def test_every_row_may_stand_beside_the_same_one(tmp_path: Path) -> None:
    folder = run(tmp_path / "1", 1, {"a2po": [1], "business": [2], "gdpo": [3]})
    a2po, business, gdpo = compare([read_run(folder, "time")], beside="business")
    gain = {rank: 1 / math.log2(rank + 1) for rank in (1, 2, 3)}
    assert a2po.above["ndcg@10"].value == pytest.approx(gain[1] - gain[2])
    assert gdpo.above["ndcg@10"].value == pytest.approx(gain[3] - gain[2])
    assert business.above == {}
    with pytest.raises(DataError, match="no row 'dpo'"):
        compare([read_run(folder, "time")], beside="dpo")
    out = tmp_path / "office.md"
    assert main(["ablation", "--runs", str(folder), "--beside", "business", "--out", str(out)]) == 0
    assert "recall@10 minus business |" in out.read_text() and "row above" not in out.read_text()


@pytest.mark.parametrize("other", [{"sp": [1, 2]}, {"sft": [1, 2, 3]}], ids=["other rows", "other samples"])
def test_runs_of_other_rows_or_samples_are_not_compared(tmp_path: Path, other: Ranks) -> None:
    runs = [read_run(run(tmp_path / "1", 1, {"sft": [1, 2]}), "time"), read_run(run(tmp_path / "2", 2, other), "time")]
    with pytest.raises(DataError, match="seeds 1 and 2"):
        compare(runs)


def test_one_seed_does_not_count_twice(tmp_path: Path) -> None:
    once = read_run(run(tmp_path / "1", 1, {"sft": [1, 2]}), "time")
    with pytest.raises(DataError, match="the same seed"):
        compare([once, once])


def test_a_run_that_is_not_done_or_has_another_split_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablation", "--runs", str(tmp_path / "none"), "--out", str(tmp_path / "x.md")]) == 65
    assert "run its job again" in capsys.readouterr().err
    done = run(tmp_path / "1", 1, {"sft": [1]})
    with pytest.raises(DataError, match="leave_one_out"):
        read_run(done, "leave_one_out")


def test_what_papers_report_stands_beside_it_with_its_protocol(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    row = "{model: TIGER, recall@10: 0.0648, source: TIGER, protocol: other texts}"
    (tmp_path / "shop" / "published.yaml").write_text(f"beauty:\n  - {row}\n")
    found = read_published("beauty", tmp_path)
    assert found[0].values == {"recall@10": 0.0648}
    assert "| TIGER | 0.0648 | TIGER | other texts |" in published_markdown(found)
    with pytest.raises(DataError, match=r"(?s)chess.*beauty"):
        read_published("chess", tmp_path)


@pytest.mark.parametrize("name", ["beauty", "instruments", "office"])
def test_every_published_row_says_its_source_and_protocol(name: str) -> None:
    assert all(row.values and row.source and row.protocol for row in read_published(name))


GATE = """
system: judge
metrics: {macro_f1: {macro_f1: [good, bad]}, accuracy: {mean: right}}
headline: macro_f1
show: [accuracy, seconds]
"""


def judged(folder: Path, said: Sequence[str | None]) -> Path:
    """An evaluation of another system: four answers to what is good, good, bad, bad; None: no answer."""
    out = folder / "evaluate"
    out.mkdir(parents=True)
    lines = []
    for n, (truth, answer) in enumerate(zip(("good", "good", "bad", "bad"), said, strict=True)):
        right = None if answer is None else float(answer == truth)
        counts = {f"tp.{truth}": 1.0} if right else {f"fn.{truth}": None if answer is None else 1.0}
        counts |= {f"fp.{answer}": 1.0} if answer not in (None, truth) else {}
        for name, value in {"right": right, **counts}.items():
            lines.append(
                {"model": "judge", "unit": f"q{n}", "sample": "a", "split": "time", "name": name, "value": value}
            )
    pq.write_table(pa.Table.from_pylist(lines, schema=VALUES_SCHEMA), out / "values.parquet")
    seconds = {"model": "judge", "metric": "seconds", "value": 2.0, "slice": "all"}
    pq.write_table(metrics_table([seconds], "real", "time", DAY), out / "metrics.parquet")
    tables = {"eval_values": ["values.parquet"], "model_metrics": ["metrics.parquet"]}
    (out / "result.json").write_text(json.dumps({"tables": tables}))
    (out / "spec.json").write_text(json.dumps({"seed": 1, "system": "judge"}))
    return folder


def test_another_system_is_told_by_the_formulas_of_its_own_gate_file_and_its_failures_are_said(tmp_path: Path) -> None:
    gates = tmp_path / "gates"
    gates.mkdir()
    (gates / "judge.yaml").write_text(GATE)
    found = read_run(judged(tmp_path / "run", ["good", None, "bad", "good"]), "time", gates)
    (line,) = compare([found])
    # good: tp 1, fp 1, fn 1 (it was not answered): 1/2. bad: tp 1, fn 1: 2/3.
    assert line.values["macro_f1"].value == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert line.values["accuracy"].value == 0.5 and line.figures == {"seconds": 2.0} and line.scored == 0.75
    assert "judge scored 75.0% of them" in markdown([found], [line], "time")


def test_a_system_without_a_gate_file_shows_the_means_of_all_that_was_measured(tmp_path: Path) -> None:
    (tmp_path / "gates").mkdir()
    found = read_run(judged(tmp_path / "run", ["good", "good", "bad", "bad"]), "time", tmp_path / "gates")
    assert set(found.shown.formulas) == {"right", "tp.bad", "tp.good"}
    assert compare([found])[0].values["right"].value == 1.0


def test_the_table_and_the_gate_say_the_same_of_one_evaluation(tmp_path: Path) -> None:
    """Value and interval of a difference of macro-F1, with failures: training's reader beside the registry's."""
    (tmp_path / "judge.yaml").write_text(GATE)
    folder = judged(tmp_path / "run", ["good", None, "bad", "good"])
    rows = pq.read_table(folder / "evaluate" / "values.parquet").to_pylist()
    other = pq.read_table(judged(tmp_path / "other", ["good", "bad", "bad", "bad"]) / "evaluate" / "values.parquet")
    both = [
        *({**row, "slices": []} for row in rows),
        *({**row, "model": "b", "slices": []} for row in other.to_pylist()),
    ]
    pq.write_table(pa.Table.from_pylist(both, schema=VALUES_SCHEMA), folder / "evaluate" / "values.parquet")
    lines = compare([read_run(folder, "time", tmp_path)], resamples=200)
    values, formula = (
        read_values([folder / "evaluate" / "values.parquet"]),
        parse_formula({"macro_f1": ["good", "bad"]}),
    )
    ours = [measure(values, name, "time", formula) for name in ("b", "judge")]
    found = difference(pair(*ours), Bootstrap(resamples=200, seed=1))
    told = lines[1].above["macro_f1"]
    assert (told.value, told.lo, told.hi) == pytest.approx(tuple(found), abs=1e-12)
    assert lines[0].values["macro_f1"].value == pytest.approx(ours[1].value)
