"""The stages of the model of hints, on a shop where who looks at a kind searches for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.models import ModelVersion
from infra.contracts import load_contract
from registry.gate_file import load_gate
from spark_jobs.market.policy_tables import PolicyTable
from tests.unit.training.query_rec import shop_kit as kit
from training.core.errors import DataError, LeftOut
from training.core.stage import StageSpec, resolve_config
from training.query_rec import policy_tables
from training.query_rec.examples import Examples
from training.query_rec.hint_model import HintModel
from training.query_rec.hint_writer import HintWriter, SampleConfig, WriterConfig
from training.query_rec.hints import FilterConfig, Hint
from training.query_rec.labels import OBSERVED, SOURCES
from training.query_rec.people import Person
from training.query_rec.policy_tables import write_tables
from training.query_rec.serve import load, package_writer
from training.query_rec.shop_words import ShopWords
from training.query_rec.stages import evaluate, il_grpo, il_sft, lists, nearline_hints, trigger_queries

AS_OF = datetime(2026, 1, 20, tzinfo=UTC)
SIZES = {"behaviours": 6, "labels": {"most": 4, "interests": 2, "queries": 2, "fits": 0.2}}
ANSWERS = {"text_tokens": 5, "query_tokens": 5, "reason_tokens": 24}
BACKBONE = {
    "hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_size": 16, "intermediate_size": 128,
    "max_positions": 512,
}  # fmt: skip
LOOP = {"epochs": 12, "rows": 2, "row_tokens": 384, "learning_rate": 3e-3}
POLICY = {
    "rounds": 3, "prompts": 8, "minibatch": 8, "rows": 2, "row_tokens": 512, "eval_rounds": 3, "learning_rate": 1e-4,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def patched() -> Iterator[None]:
    """A ranker and an encoder that cost nothing."""
    patch = pytest.MonkeyPatch()
    for stage in (lists, il_grpo, evaluate, trigger_queries):
        patch.setattr(stage.HintRanker, "load", lambda *_: kit.KindRanker())
    for stage in (lists, evaluate):
        patch.setattr(stage, "embed_texts", lambda texts, *_, **__: kit.encode(texts))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stage `lists`."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "hint_ranker").mkdir()
    config = {"lists": SIZES, "candidates": 4, "ranked": 2}
    tables = {"query_samples": kit.meetings(240), "items": kit.items()}
    spec = kit.spec(folder, "lists", config, tables, hint_ranker=folder / "hint_ranker")
    result = lists.main(spec)
    assert result.metrics["think.train"] > 60 and result.metrics["source.rank"] > 0
    return spec.out_dir


def tuned(made: Path, form: str, **config: Any) -> tuple[Path, dict[str, float]]:
    folder = made.parent
    name = f"il_sft_{form}_{len(list(folder.iterdir()))}"
    values = {
        "answers": {**ANSWERS, "form": form},
        "backbone": BACKBONE,
        "loop": LOOP,
        "text_vocabulary": 400,
        **config,
    }
    spec = kit.spec(folder, name, values, {}, lists=made)
    return spec.out_dir, dict(il_sft.main(spec).metrics)


@pytest.fixture(scope="module")
def direct(made: Path) -> tuple[Path, dict[str, float]]:
    return tuned(made, "direct")


@pytest.fixture(scope="module")
def think(made: Path) -> tuple[Path, dict[str, float]]:
    return tuned(made, "think")


def test_lists_begin_with_what_was_searched_for_and_know_nothing_of_it_beforehand(made: Path) -> None:
    examples = Examples.open(made / "lists")
    days = examples.read("think", {"train", "test"})
    assert {one.part for one in days} == {"train", "test"}
    for one in days:
        seen = [source in OBSERVED for source in one.sources]
        assert seen == sorted(seen, reverse=True) and one.labels[: sum(seen)] == one.observed
        assert len(one.labels) <= 4 and len(set(map(str.lower, one.labels))) == len(one.labels)
    # Of whom nothing is known there is a test day, which stays in every mean, and no interest to learn.
    assert any(not one.interests for one in days if one.part == "test")
    assert all(one.interests and one.reasons for one in days if one.part == "train")
    assert all(max(own.triggers) <= len(one.told.contents) for one in days for own in one.interests)
    requests = examples.read("direct", {"train"})
    assert requests and all("hint" in one.sources and not one.interests for one in requests)


def test_without_a_ranker_lists_are_what_was_searched_for(tmp_path: Path) -> None:
    """A log of searches without hints: nothing tells which of what is counted would be clicked."""
    tables = {"query_samples": kit.meetings(60), "items": kit.items()}
    spec = kit.spec(tmp_path, "lists", {"lists": SIZES, "ranked": 0}, tables)
    assert "source.rank" not in lists.main(spec).metrics
    days = Examples.open(spec.out_dir / "lists").read("think", {"train"})
    assert days and all(one.labels == one.observed for one in days)


def test_a_smaller_draw_begins_a_larger_one(made: Path) -> None:
    examples = Examples.open(made / "lists")
    assert examples.read("think", {"train"}, 9) == examples.read("think", {"train"}, 20)[:9]


@pytest.mark.parametrize("form", ["direct", "think"])
def test_a_small_model_learns_the_form_and_whose_queries(form: str, request: Any, made: Path) -> None:
    out, metrics = request.getfixturevalue(form)
    assert metrics["format_rate"] > 0.9 and metrics["rouge"] > 0.5
    assert metrics["prompt_tokens.compressed"] < 0.7 * metrics["prompt_tokens.spelt"]
    model = HintModel.load(out / "model")
    example = Examples.open(made / "lists").read(form, {"valid"})[0]
    assert model.answers.read(model.sample(example).response) is not None


def test_plain_sft_has_the_same_queries_in_another_order_and_no_reasons(made: Path) -> None:
    examples = Examples.open(made / "lists").read("think", {"train"})
    plain = il_sft._in_any_order(examples, 17)
    assert plain != examples and all(not one.reasons for one in plain)
    for one, other in zip(examples, plain, strict=True):
        assert sorted(one.labels) == sorted(other.labels)
        assert {own.triggers: sorted(own.queries) for own in one.interests} == {
            own.triggers: sorted(own.queries) for own in other.interests
        }


def policy(made: Path, start: Path, name: str, **config: Any) -> tuple[dict[str, float], dict[str, Any], Path]:
    folder = made.parent
    values = {"start": "il_sft", "responses": 4, "policy": POLICY, "gate": {"samples": 20, "valid": 0.5}, **config}
    stages = {"lists": made, "il_sft": start, "hint_ranker": folder / "hint_ranker"}
    spec = kit.spec(folder, name, values, {"items": kit.items()}, **stages)
    result = il_grpo.main(spec)
    return dict(result.metrics), json.loads((spec.out_dir / "gate.json").read_text()), spec.out_dir


@pytest.mark.parametrize("form", ["direct", "think"])
@pytest.mark.parametrize("level", ["query", "list"])
def test_a_policy_logs_every_reward_with_the_version_of_its_ranker(
    form: str, level: str, request: Any, made: Path
) -> None:
    start, _ = request.getfixturevalue(form)
    metrics, gate, out = policy(made, start, f"{form}_{level}", level=level)
    assert "rewards by ranker k1" in gate["note"] and metrics["rounds"] == 3
    rounds = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    played = [line for line in rounds if "rollout_seconds" in line]
    assert len(played) == 3
    names = {"ctr@k1", "rouge", "length", "servability", "purchases", "format", "repetition", "found"}
    names |= {"trigger"} if form == "think" and level == "query" else set()
    logged = {name for line in played for name in line if name.startswith("reward/")}
    assert logged == {f"reward/{name}" for name in names}
    HintModel.load(out / "model")


def test_policies_learn_of_the_later_training_days(made: Path) -> None:
    train = Examples.open(made / "lists").read("think", {"train"})
    later = il_grpo._later(train, 0.5)
    assert 0 < len(later) < len(train)
    assert min(one.day for one in later) > sorted({one.day for one in train})[6]
    assert il_grpo._later(train, 0.0) == train and il_grpo._later([], 0.5) == []


def evaluated(made: Path, config: dict[str, Any], **stages: Path) -> tuple[dict[str, float], StageSpec]:
    tables = {"query_samples": kit.meetings(240), "items": kit.items()}
    ranker = made.parent / "hint_ranker"
    spec = kit.spec(made.parent, "evaluate", config, tables, lists=made, hint_ranker=ranker, **stages)
    return dict(evaluate.main(spec).metrics), spec


def test_all_rows_stand_in_one_table_and_what_is_served_is_packaged(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any]
) -> None:
    config = {
        "rows": {"flat": "a", "planned": "b"},
        "serves": {"direct": "flat", "think": "planned"},
        "writer": {"samples": {"samples": 3, "depth": 12}, "hints": {"items": 4, "unsafe": ["lamps"]}},
    }
    metrics, spec = evaluated(made, config, a=direct[0], b=think[0])
    served = {"query_rec_direct", "query_rec_think"}
    rows = {"counted", "again", "co_click", "category", "openings", "popular", "flat", "planned", *served}
    values = pq.read_table(spec.out_dir / "tables/eval_values/part-0.parquet")
    assert set(values["model"].to_pylist()) == rows
    assert metrics["flat.valid"] == metrics["planned.valid"] == 1.0
    for row, written in (("query_rec_direct", "flat"), ("query_rec_think", "planned")):
        assert metrics[f"{row}.servable@12"] == 1.0 and metrics[f"{row}.hit@12"] >= metrics[f"{written}.hit@12"] - 0.3
    assert metrics["popular.written@12"] == 0.0 and metrics["flat.written@12"] == 1.0
    assert {f"{row}.minus.{other}.recall@12.lo" for row in served for other in ("popular", "counted")} <= metrics.keys()
    assert metrics["counted.written@12"] == 0.0 and metrics["counted.servable@12"] == 1.0
    writer = HintWriter.load(spec.out_dir / "model")
    by_hand = _recalls_without_a_model(made, writer, 12)
    for measure, expected in zip(("recall@12", "new_recall@12"), by_hand, strict=True):
        assert metrics[f"counted.{measure}"] == pytest.approx(expected) and expected > 0
    assert metrics["again.new_recall@12"] == 0.0, "of what is new it knows nothing"
    # Of 60 searches 15 are followed by a purchase: of red pens (15 + 20 / 4) / 50, of red lamps (0 + 20 / 4) / 50.
    bought = {"red pen": 0.4, "red lamp": 0.1}
    shares = [bought[query] for query in writer.fill.counts.popular([], 12) if query in bought]
    assert shares and metrics["popular.purchases@12"] == pytest.approx(sum(shares) / len(shares))
    gate = load_gate("query_rec")
    assert set(gate.baselines) < rows
    needed = {name.replace("@30", "@12") for formula in gate.metrics.values() for name in formula.needs}
    assert needed <= set(values["name"].to_pylist())
    answering = load(spec.out_dir / "model")
    answer = answering.predict(pd.read_parquet(spec.out_dir / "model" / "example.parquet"), {})
    assert len(answer) == 2 and all(0 < len(own) <= 12 for own in answer["hints"])
    assert set(answer["sources"][1]) <= {"model", "again", "popular", "category", "openings", "co_click"}
    printed = (spec.out_dir / "hints.txt").read_text().splitlines()
    assert len(printed) == 20 and not any("lamp" in line.split(": ", 1)[1] for line in printed)


def test_rows_of_a_run_can_be_played_to_everybody_of_the_test_part(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"rows": {"flat": "a", "planned": "b"}, "serves": {"direct": "flat", "think": "planned"}}
    _, spec = evaluated(made, config, a=direct[0], b=think[0])
    run = tmp_path / "run"
    (run / "evaluate").mkdir(parents=True)
    (run / "evaluate" / "spec.json").write_text(json.dumps(asdict(spec)))
    rows = ["counted", "co_click", "query_rec_think"]
    write_tables(run, rows, 3, tmp_path / "played")
    tables = {row: pd.read_parquet(tmp_path / "played" / f"{row}.parquet") for row in rows}
    people = {one.person.user_id for one in Examples.open(made / "lists").read("think", {"test"})}
    for row, table in tables.items():
        played = PolicyTable.of(table, sorted(set(table["query"])), row)
        assert set(played.users) == people and played.version == row and played.thing == "query"
        assert (table.groupby("user_id").size() == 3).all(), "a search box is never empty"
    assert not tables["co_click"].equals(tables["counted"])
    values = pd.read_parquet(spec.out_dir / "tables/eval_values/part-0.parquet")
    assert set(values["model"]) == set(evaluate.row_names(spec, resolve_config(spec, evaluate.Config)))
    monkeypatch.setattr(policy_tables, "rows_of", None)  # what it is asked for, it knows before it writes a list
    with pytest.raises(DataError, match="no row better"):
        write_tables(run, ["better"], 3, tmp_path / "other")
    with pytest.raises(DataError, match="no evaluation"):
        write_tables(tmp_path, rows, 3, tmp_path / "other")


def _recalls_without_a_model(made: Path, writer: HintWriter, depth: int) -> tuple[float, float]:
    """Of what is searched for on test days the share that is shown, and of what the person had not searched for."""
    whole, new = list[float](), list[float]()
    for day in Examples.open(made / "lists").read("think", {"test"}):
        shown = {hint.query.lower() for hint in writer.fill.shown((), day.person, day.told, depth)}
        asked = {query.lower() for query in day.observed}
        unknown = asked - {query.lower() for query in day.person.searches}
        whole.append(len(asked & shown) / len(asked))
        new += [len(unknown & shown) / len(unknown)] if unknown else []
    return sum(whole) / len(whole), sum(new) / len(new)


def test_without_a_ranker_nothing_is_known_of_purchases_and_the_rest_is_measured(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any]
) -> None:
    rows = {"rows": {"flat": "a", "planned": "b"}, "serves": {"direct": "flat", "think": "planned"}}
    metrics, spec = evaluated(made, {**rows, "ranker": ""}, a=direct[0], b=think[0])
    assert np.isnan(metrics["popular.purchases@30"]) and metrics["popular.recall@30"] > 0
    values = pq.read_table(spec.out_dir / "tables/eval_values/part-0.parquet").to_pandas()
    assert not values.loc[values["name"] == "purchases_known", "value"].any()


def test_what_a_refused_stage_hands_on_is_not_written_again(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    write = evaluate.write_lists
    monkeypatch.setattr(evaluate, "write_lists", lambda row, *rest: asked.append(row) or write(row, *rest))
    shutil.copytree(direct[0] / "model", tmp_path / "model")
    config = {
        "rows": {"flat": "a", "refused": "c", "planned": "b"},
        "serves": {"direct": "refused", "think": "planned"},
        "writer": {"samples": {"samples": 2, "depth": 6}},
    }
    metrics, _ = evaluated(made, config, a=direct[0], b=think[0], c=tmp_path)
    assert asked == ["flat", "planned"], "one model is asked once, whatever its folder"
    for name in ("recall@6", "similarity@6", "valid"):
        assert metrics[f"refused.{name}"] == metrics[f"flat.{name}"]


def test_a_row_that_nobody_has_is_not_served(made: Path) -> None:
    with pytest.raises(DataError, match="no row to serve of the form think: 'x'"):
        evaluated(made, {"rows": {"flat": "a"}, "serves": {"direct": "flat", "think": "x"}})
    with pytest.raises(DataError, match="no row to serve of the form direct: None"):
        evaluated(made, {"rows": {"flat": "a"}, "serves": {"think": "flat"}})


def test_a_shop_without_a_log_is_left_out(tmp_path: Path) -> None:
    tables = {"query_samples": kit.meetings(1).slice(0, 0), "items": kit.items()}
    (tmp_path / "hint_ranker").mkdir()
    spec = kit.spec(tmp_path, "lists", {}, tables, hint_ranker=tmp_path / "hint_ranker")
    with pytest.raises(LeftOut, match="nobody has met a search box"):
        lists.main(spec)


def _writer(made: Path, direct: tuple[Path, Any], think: tuple[Path, Any], config: WriterConfig) -> HintWriter:
    models = [HintModel.load(one / "model") for one, _ in (direct, think)]
    return HintWriter(models[0], models[1], ShopWords.of(kit.items()), Examples.open(made / "lists").searches(), config)


def _packaged(writer: HintWriter, direct: tuple[Path, Any], think: tuple[Path, Any], folder: Path) -> Path:
    package_writer(writer, {"direct": direct[0] / "model", "think": think[0] / "model"}, folder)
    return folder


def test_anybody_is_shown_hints_that_can_be_shown(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any]
) -> None:
    """Who did nothing, ten thousand things, things out of order, in signs and from right to left."""
    config = WriterConfig(SampleConfig(samples=2, depth=5), FilterConfig(log_prob=-20.0, unsafe=("chair",)))
    writer = _writer(made, direct, think, config)
    long = ["x" * 10_000, "\U0001f58a\ufe0f red", "\u0642\u0644\u0645", "red lamp", "chair-red-3"]
    actions = ["search"] * 4 + ["click"]
    people = [
        Person("nobody", AS_OF, (), (), ()),
        Person("busy", AS_OF, (3,) * 10_000, ("search",) * 10_000, tuple(f"red pen {n}" for n in range(10_000))),
        Person("odd", AS_OF, (0, 9, 2, 2, 1), tuple(actions), tuple(long)),
    ]
    for shown in writer.hints(people):
        assert 0 < len(shown) <= 5
        assert all(
            not writer.fill.hints.refused(hint.query, hint.source) and "chair" not in hint.query for hint in shown
        )
    assert writer.hints(people) == writer.hints(people)
    # What may be searched for again is first, the last search before the others.
    assert writer.hints(people)[2][0] == Hint("red lamp", "again")
    nobody, busy, _ = found = writer.interests(people)
    assert nobody == [] and busy and found == writer.interests(people)
    for person, own in zip(people, found, strict=True):
        done = person.triggers(writer.shop.phrases, writer.think.lists.behaviours)
        assert all(1 <= number <= len(done) for one in own for number in one.triggers)
        assert all(one.queries and not any(map(writer.fill.hints.refused, one.queries)) for one in own)


def test_both_forms_are_packaged_with_one_catalogue(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any], tmp_path: Path
) -> None:
    writer = _writer(made, direct, think, WriterConfig(SampleConfig(samples=1, depth=4)))
    read = HintWriter.load(_packaged(writer, direct, think, tmp_path / "writer"))
    assert (read.direct.config.form, read.think.config.form) == ("direct", "think") and read.config == writer.config
    person = Person("a", AS_OF, (1, 1), ("search", "click"), ("blue lamp", "lamp-blue-3"))
    assert read.hints([person]) == writer.hints([person])
    assert read.interests([person]) == writer.interests([person])
    with pytest.raises(DataError, match="holds no writer of hints"):
        HintWriter.load(think[0] / "model")


def test_another_model_adds_queries_and_prompts_say_who_somebody_was_then(made: Path, direct: tuple[Path, Any]) -> None:
    """The profile of the day before, never one of after the meeting."""
    folder = made.parent
    profiles = [
        {"user_id": f"u{n}", "available_at": datetime(*own, tzinfo=UTC), "profile_text": text}
        for n in range(60)
        for own, text in (((2025, 12, 1), "old"), ((2025, 12, 30), "new"), ((2026, 3, 1), "later"))
    ]
    texts = {name: [one[name] for one in profiles] for name in ("user_id", "profile_text")}
    times = pa.array([one["available_at"] for one in profiles], pa.timestamp("us", tz="UTC"))
    table = pa.table({**texts, "available_at": times})
    config = {"lists": SIZES, "candidates": 4, "ranked": 1, "profiles": True, "generated": "other"}
    tables = {"query_samples": kit.meetings(60), "items": kit.items(), "user_profiles": table}
    stages = {"hint_ranker": folder / "hint_ranker", "other": direct[0]}
    spec = kit.spec(folder, "lists_more", config, tables, **stages)
    metrics = lists.main(spec).metrics
    assert metrics["source.generated"] > 0
    examples = Examples.open(spec.out_dir / "lists").read("think", {"train", "valid", "test"})
    assert {one.told.profile for one in examples} == {"new"}
    for one in examples:
        ranks = [SOURCES.index(source) for source in one.sources]
        assert ranks == sorted(ranks)


def _without_stock(items: pa.Table, begin: str) -> pa.Table:
    stock = [row["in_stock"] and not row["item_id"].startswith(begin) for row in items.to_pylist()]
    return items.set_column(items.schema.get_field_index("in_stock"), "in_stock", pa.array(stock))


def _night(made: Path, folder: Path, direct: tuple[Path, Any], think: tuple[Path, Any]) -> StageSpec:
    """A night of the shop's test people, with a writer and a ranker in use."""
    met = kit.meetings(60).to_pylist()
    rows = [
        {
            "user_id": row["user_id"],
            "as_of": datetime(2026, 1, 21, tzinfo=UTC),
            **{name: row[f"behaviour_{name}"] for name in ("days_ago", "actions", "contents")},
        }
        for row in met
        if row["form"] == "think"
    ]
    schema = pa.schema(
        {"user_id": pa.string(), "as_of": pa.timestamp("us", tz="UTC"), "days_ago": pa.list_(pa.int64())}
    )
    for name in ("actions", "contents"):
        schema = schema.append(pa.field(name, pa.list_(pa.string())))
    # What was searched for long ago, of late, and later than the night.
    counts = [("red lamp", date(2025, 12, 21), 99), ("blue lamp", date(2026, 1, 3), 9)]
    counts += [("blue lamp", date(2026, 1, 18), 2), ("blue lamp", date(2026, 1, 30), 99)]
    stats = {
        "stat_date": [day for _, day, _ in counts],
        "query": [query for query, _, _ in counts],
        "clicked_30d": [0] * len(counts),
        "typed_30d": [count for _, _, count in counts],
    }
    tables = {
        "active_people": pa.Table.from_pylist(rows, schema),
        "items": _without_stock(kit.items(), "lamp-blue-2"),
        "query_stats": pa.table(stats),
    }
    folder.mkdir()
    writer = _writer(made, direct, think, WriterConfig(hints=FilterConfig(log_prob=-20.0, unsafe=("chairs",))))
    _packaged(writer, direct, think, folder / "writer")
    versions = {
        "query_rec": (ModelVersion("3", "champion", str(folder / "writer")),),
        "hint_ranker": (ModelVersion("8", "champion", str(folder)),),
    }
    made_spec = kit.spec(folder, "trigger_queries", {"shard_people": 16}, tables)
    return replace(made_spec, models=versions)


def test_a_night_has_the_queries_of_what_people_did_that_may_be_shown(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any], tmp_path: Path
) -> None:
    spec = _night(made, tmp_path / "a", direct, think)
    result = trigger_queries.main(spec)
    rows = pq.read_table(spec.out_dir / result.tables["trigger_queries"][0]).to_pylist()
    assert rows and result.metrics["rows"] == len(rows) and result.metrics["people"] == 60
    assert list(rows[0]) == [column.name for column in load_contract("trigger_queries").columns]
    words = ShopWords.of(_without_stock(kit.items(), "lamp-blue-2"))
    done = {"item": set[str](), "search": set[str]()}
    for row in kit.meetings(60).to_pylist():
        for action, content in zip(row["behaviour_actions"], row["behaviour_contents"], strict=True):
            done["search" if action == "search" else "item"].add(content)
    assert "lamp-blue-2" in done["item"] - words.sold and {"item", "search"} == {row["kind"] for row in rows}
    for row in rows:
        assert row["trigger"] in done[row["kind"]] and (row["kind"] == "search" or row["trigger"] in words.sold)
        assert len(words.words.found(row["query"], 0.5)) >= 4 and "chair" not in row["query"]
        assert (row["index_date"], row["model_version"], row["ranker_version"]) == (date(2026, 1, 20), "3", "8")
    # Nothing else was searched for in the 30 days up to the day.
    assert {row["query"] for row in rows if row["worth"] > 0.5} == {"blue lamp"}


@pytest.mark.parametrize(
    ("step", "shards"), [("write", 0), ("write", 2), ("chances", 1), ("index_of", 4), ("_written", 4)]
)
def test_a_night_that_was_killed_asks_the_open_shards_and_no_other_and_ends_alike(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any], tmp_path: Path, step: str, shards: int
) -> None:
    """While a shard is written or ranked, before the index is made, and before it is put down."""
    whole, cut = (_night(made, tmp_path / name, direct, think) for name in "ab")
    expected = pq.read_table(whole.out_dir / trigger_queries.main(whole).tables["trigger_queries"][0])
    target: Any = {"write": HintModel, "chances": kit.KindRanker}.get(step, trigger_queries)
    calls, real = count(), getattr(target, step)

    def dies(*arguments: Any) -> Any:
        if target is trigger_queries or next(calls) == shards:
            raise KeyboardInterrupt
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, step, dies)
        with pytest.raises(KeyboardInterrupt):
            trigger_queries.main(cut)
    left = {file: file.stat().st_mtime_ns for file in cut.out_dir.glob("shards/*/*/*.parquet")}
    assert len(left) == shards
    found = pq.read_table(cut.out_dir / trigger_queries.main(cut).tables["trigger_queries"][0])
    assert found.equals(expected) and {file: file.stat().st_mtime_ns for file in left} == left


def test_a_night_without_a_model_or_a_ranker_in_use_is_left_out(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any], tmp_path: Path
) -> None:
    night = _night(made, tmp_path / "a", direct, think)
    for model in ("query_rec", "hint_ranker"):
        with pytest.raises(LeftOut, match=f"no version of {model} has been promoted yet"):
            trigger_queries.main(replace(night, models={**night.models, model: ()}))


def _signal(user: str, minute: int, *done: tuple[str, str], before: tuple[str, ...] = ()) -> dict[str, Any]:
    """The last thing `done` calls for hints; `before`: the queries of the person's lists so far."""
    time = AS_OF + timedelta(minutes=minute)
    own = {"user_id": user, "signal_id": f"{user}{minute}", "signal_date": time.date(), "signal_time": time}
    own |= {"as_of": time + timedelta(microseconds=1), "action": done[-1][0], "content": done[-1][1]}
    own |= {"days_ago": [0] * len(done), "actions": [one for one, _ in done], "contents": [one for _, one in done]}
    own |= {"queries": list(before), "sources": ["model"] * len(before), "lists": [0] * len(before)}
    asked = ["view"][: len(before)]
    return {**own, "trigger_actions": asked, "trigger_contents": ["lamp-red-3"][: len(before)]}


def _nearline(folder: Path, signals: list[dict[str, Any]], *served: Any) -> StageSpec:
    folder.mkdir()
    made, direct, think = served
    config = WriterConfig(SampleConfig(samples=3), FilterConfig(log_prob=-20.0, unsafe=("chair",)))
    _packaged(_writer(made, direct, think, config), direct, think, folder / "writer")
    rows = pa.Table.from_pylist(signals, pa.schema(list(nearline_hints._ASKED.items())))
    spec = kit.spec(folder, "nearline_hints", {}, {"fresh_signals": rows, "items": kit.items()})
    return replace(spec, models={"query_rec": (ModelVersion("3", "champion", str(folder / "writer")),)})


def test_whoever_calls_for_hints_has_a_list_before_the_last_ones(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any], tmp_path: Path
) -> None:
    """Also who did ten thousand things, out of order, in signs and from right to left, with an item that is gone."""
    odd = [
        ("search", "x" * 10_240),
        ("view", "gone"),
        ("search", "\U0001f58a\ufe0f red"),
        ("search", "\u0642\u0644\u0645"),
    ]
    signals = [
        _signal("ann", 1, ("view", "lamp-blue-3"), before=("red lamp", "chair")),
        _signal("ann", 30, ("view", "lamp-blue-3"), ("search", "blue lamp"), before=("red lamp", "chair")),
        _signal("busy", 2, *[("search", f"red pen {n}") for n in range(10_000)]),
        _signal("gone", 3, ("view", "gone")),
        _signal("odd", 4, *odd),
        _signal("sure", 5, ("search", "green lamp"), ("search", " Red  LAMP"), before=("red lamp", "blue lamp")),
    ]
    spec = _nearline(tmp_path / "a", signals, made, direct, think)
    result = nearline_hints.main(spec)
    rows = pq.read_table(spec.out_dir / result.tables["user_hints"][0])
    assert rows.schema.names == [column.name for column in load_contract("user_hints").columns]
    told = {row["signal_id"]: row for row in rows.to_pylist()}
    assert list(told) == [one["signal_id"] for one in signals] and result.metrics["people"] == 5
    shop = ShopWords.of(kit.items())
    for row in told.values():
        assert (
            0 < row["lists"].count(0) <= 10 and row["model_version"] == "3" and row["available_at"] > row["signal_time"]
        )
        assert len(row["queries"]) == len(row["sources"]) == len(row["lists"])
        assert all(
            len(shop.words.found(query, 0.5)) >= (1 if source == "again" else 4) and "chair" not in query
            for query, source in zip(row["queries"], row["sources"], strict=True)
        )
    first, second = told["ann1"], told["ann30"]
    assert first["trigger_contents"] == ["lamp-blue-3", "lamp-red-3"] and "red lamp" in first["queries"]
    # The list of half an hour later goes before that of now, and knows it.
    assert second["trigger_contents"] == ["blue lamp", "lamp-blue-3", "lamp-red-3"]
    assert second["available_at"] > first["available_at"]
    # Who has just searched is not shown that search, also not where a list before had it, but what was searched before.
    for user, query in (("ann30", "blue lamp"), ("sure5", "red lamp")):
        assert query not in map(str.lower, told[user]["queries"])
    sure = dict(zip(told["sure5"]["queries"], told["sure5"]["sources"], strict=True))
    assert next(iter(sure.items())) == ("green lamp", "again") and "blue lamp" in sure
    # Of an item that is gone nothing is told: hints as for somebody who did nothing.
    assert set(told["gone3"]["sources"]) <= {"model", "popular"}


def test_without_a_model_in_use_or_anybody_who_calls_for_hints_it_is_left_out(
    made: Path, direct: tuple[Path, Any], think: tuple[Path, Any], tmp_path: Path
) -> None:
    spec = _nearline(tmp_path / "a", [_signal("ann", 1, ("view", "lamp-red-3"))], made, direct, think)
    with pytest.raises(LeftOut, match="no version of query_rec has been promoted yet"):
        nearline_hints.main(replace(spec, models={}))
    with pytest.raises(LeftOut, match="has found no row"):
        nearline_hints.main(_nearline(tmp_path / "b", [], made, direct, think))
