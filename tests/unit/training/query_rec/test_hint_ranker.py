"""The hint ranker: what it learns, what it says of texts and people of any kind, and that a killed run ends alike."""

from __future__ import annotations

import json
import os
import signal
import zlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.models import ModelVersion
from tests.unit.training.hint_kit import no_hints, stage_spec, write_shop
from training.core.errors import DataError, LeftOut, Preempted
from training.core.stage import TableRef, run_stage
from training.core.steps import drawn
from training.query_rec import hint_ranker as module
from training.query_rec.calibration import Platt, log_loss
from training.query_rec.hashed_text import Texts
from training.query_rec.hint_examples import Hints, read_hints
from training.query_rec.hint_linear import PLACES, Linear
from training.query_rec.hint_network import Network, NetworkConfig, hiding
from training.query_rec.hint_questions import KNOTS, NAMES, OF_QUERY, OF_USER, Quantiles, Questions
from training.query_rec.hint_ranker import HintRanker
from training.query_rec.people import Person
from training.query_rec.stages import evaluate_hint_ranker, hint_ranker

pytestmark = pytest.mark.unit
NETWORK = {"width": 16, "buckets": 2048, "length": 10, "dense": [16]}
QUICK = {"network": NETWORK, "training": {"epochs": 12, "requests": 64, "check_steps": 20, "learning_rate": 0.01}}
AS_OF = datetime(2026, 2, 1, tzinfo=UTC)


def person(*did: tuple[int, str, str], **features: float) -> Person:
    days, actions, contents = zip(*did, strict=True) if did else ((), (), ())
    return Person("u", AS_OF, days, actions, contents, features)


def train(folder: Path, tables: dict[str, TableRef], config: dict[str, Any] = QUICK, **more: Any) -> HintRanker:
    spec = stage_spec(folder, "hint_ranker", tables, config, **more)
    run_stage(spec, hint_ranker.main)
    return HintRanker.load(spec.out_dir / "model")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, TableRef]]:
    folder = tmp_path_factory.mktemp("hints")
    return folder, write_shop(folder)


@pytest.fixture(scope="module")
def ranker(shop: tuple[Path, dict[str, TableRef]]) -> HintRanker:
    return train(*shop)


def said(ranker: HintRanker, one: Person, *queries: str) -> Sequence[float]:
    (found,) = ranker.chances([one], [queries])
    assert found.shape == (len(queries),) and ((found > 0) & (found < 1)).all()
    return [float(chance) for chance in found]


def test_it_learns_what_the_person_did_and_which_words_are_clicked(ranker: HintRanker) -> None:
    at_lamps = person((2, "view", "i1"), (0, "search", "lamps cheap"))
    lamp, desk, red = said(ranker, at_lamps, "blue lamp", "blue desk", "red lamp")
    assert lamp > 2 * desk and red > lamp
    at_desks = person((2, "view", "i2"), (0, "search", "desks cheap"))
    assert said(ranker, at_desks, "blue desk")[0] > 2 * said(ranker, at_desks, "blue lamp")[0]


def test_queries_that_nobody_has_seen_have_chances_of_their_own(ranker: HintRanker) -> None:
    """No unknown id: words and pieces say what they are; what shares none with the log has what its numbers say."""
    at_lamps = person((2, "view", "i1"), (0, "search", "lamps cheap"))
    asked = ["pink lamp", "pink desk", "lamp lamps", "qqrrss tt", "zyxwv", "کاغذ", "🎁"]
    assert not {query for query in asked if query in ranker.known}
    chances = said(ranker, at_lamps, *asked)
    assert len(set(chances[:5])) == 5
    assert chances[0] > 1.5 * chances[1] and chances[0] > 1.5 * max(chances[3:])


@pytest.mark.parametrize(
    "query",
    ["", " ", "x" * 10_000, "lamp " * 2_000, "🎁🎁", "مصباح \u200fأحمر", "\u202eevil", "a\x00b", "<script>", "'; --"],
)
def test_any_text_has_a_chance(ranker: HintRanker, query: str) -> None:
    said(ranker, person((1, "view", "i1")), query)
    said(ranker, person(), query)


def test_numbers_beyond_all_that_was_shown_say_no_more_than_the_furthest_of_these(ranker: HintRanker) -> None:
    """A policy would find a query of a hundred letters whose chance is 1."""
    highest = max(said(ranker, person((2, "view", "i1"), (0, "search", "lamps cheap")), "red lamp", "blue lamp"))
    for words in ("x" * 120, "lamp " * 24, "lamp red " * 12):
        assert said(ranker, person((1, "view", "i1")), words)[0] < 1.5 * highest


def test_the_form_of_a_query_does_not_matter(ranker: HintRanker) -> None:
    one, two = said(ranker, person((1, "view", "i1")), " Red  LAMP", "red lamp")
    assert one == pytest.approx(two, rel=1e-6)


def test_who_did_nothing_too_much_or_what_is_unknown(ranker: HintRanker) -> None:
    nobody = said(ranker, person(), "red lamp")
    odd = person((3, "view", "deleted"), (2, "search", "  "), (1, "teleport", "i1"))
    assert said(ranker, odd, "red lamp") == pytest.approx(nobody, rel=1e-5)
    ten_thousand = [((9_999 - n) // 8, "view", f"i{n % 8}") for n in range(10_000)]
    last = ten_thousand[-10:]
    assert said(ranker, person(*ten_thousand), "red lamp") == pytest.approx(
        said(ranker, person(*last), "red lamp"), rel=1e-5
    )
    said(ranker, person((-3, "view", "i1"), (10**6, "view", "i2")), "red lamp")
    assert ranker.chances([], []) == [] and [len(one) for one in ranker.chances([person(), person()], [[], ["a"]])] == [
        0,
        1,
    ]


DID = st.tuples(
    st.integers(0, 40), st.sampled_from(["view", "search", "cart"]), st.sampled_from(["i1", "i2", "red lamp"])
)


@settings(max_examples=30, deadline=None)
@given(did=st.lists(DID, max_size=8, unique_by=lambda one: one[0]), shuffle=st.randoms(use_true_random=False))
def test_what_arrives_out_of_order_or_twice_says_the_same(ranker: HintRanker, did: list[Any], shuffle: Any) -> None:
    again = did + did[:3]
    shuffle.shuffle(again)
    in_order = sorted(did, key=lambda one: -one[0])
    queries = ("red lamp", "blue desk")
    assert said(ranker, person(*again), *queries) == pytest.approx(said(ranker, person(*in_order), *queries), rel=1e-5)


def test_many_are_asked_as_one_is(ranker: HintRanker) -> None:
    people = [person((n % 5, "view", f"i{n % 8}")) for n in range(40)]
    queries = [[f"red lamp {n}", "blue desk"][: 1 + n % 2] for n in range(40)]
    together = ranker.chances(people, queries)
    for one, own, found in zip(people, queries, together, strict=True):
        assert said(ranker, one, *own) == pytest.approx(found.tolist(), rel=1e-4)


def test_statistics_end_with_the_training_days(ranker: HintRanker) -> None:
    """Of day 28, which is held out, nothing is known."""
    assert ranker.facts.until == "2026-01-20"
    assert ranker.known["red lamp"].tolist() == [3.0] * len(OF_QUERY)


def test_a_folder_keeps_all_and_says_which_it_is(ranker: HintRanker, tmp_path: Path) -> None:
    ranker.save(tmp_path)
    loaded = HintRanker.load(tmp_path)
    one = person((1, "view", "i1"), **{OF_USER[0]: 3.0})
    assert said(loaded, one, "red lamp", "new words") == said(ranker, one, "red lamp", "new words")
    assert loaded.version == ranker.version and ranker.version.startswith("2026-01-20-")
    assert replace(ranker, facts=replace(ranker.facts, calibration=Platt(0.1, 0.0))).version != ranker.version
    facts = json.loads((tmp_path / "ranker.json").read_text())
    (tmp_path / "ranker.json").write_text(json.dumps(facts | {"names": facts["names"][:-1]}))
    with pytest.raises(DataError, match="reads other numbers"):
        HintRanker.load(tmp_path)
    wider = {**facts, "network": facts["network"] | {"width": facts["network"]["width"] + 1}}
    (tmp_path / "ranker.json").write_text(json.dumps(wider))
    with pytest.raises(DataError, match="of another network"):
        HintRanker.load(tmp_path)
    with pytest.raises(DataError, match="holds no hint ranker"):
        HintRanker.load(tmp_path / "nowhere")


def test_it_goes_on_from_the_newest_version_that_fits(
    ranker: HintRanker, shop: tuple[Path, dict[str, TableRef]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "v1"
    ranker.save(folder)
    future, wide = tmp_path / "v2", tmp_path / "v3"
    replace(ranker, facts=replace(ranker.facts, until="2026-01-29")).save(future)
    versions = [ModelVersion("2", "challenger", str(future)), ModelVersion("1", "champion", str(folder))]
    short = {"network": NETWORK, "training": {"epochs": 1, "requests": 64, "check_steps": 2, "learning_rate": 1e-6}}
    warm = train(tmp_path / "warm", shop[1], short, models={"hint_ranker": tuple(versions)})
    assert warm.facts.started_from == ranker.version
    assert "version 2 is not gone on from: it has learnt of days up to 2026-01-29" in capsys.readouterr().err
    one = person((2, "view", "i1"))
    assert said(warm, one, "red lamp", "blue desk") == pytest.approx(
        said(ranker, one, "red lamp", "blue desk"), rel=0.05
    )
    cold = train(tmp_path / "cold", shop[1], short, models={"hint_ranker": (ModelVersion("3", "champion", str(wide)),)})
    assert cold.facts.started_from is None


def checks(folder: Path) -> list[float]:
    """The log loss of the validation days at each check, the first at the start."""
    lines = (folder / "hint_ranker/metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["valid_log_loss"] for line in lines]


def validated(ranker: HintRanker, hints: Hints) -> float:
    valid = hints.parts["valid"]
    return log_loss(ranker.chances_of(valid.questions), valid.clicked)


WILD = {"network": NETWORK, "training": {"epochs": 1, "requests": 64, "check_steps": 2, "learning_rate": 3.0}}
"""A rate at which nothing is learnt, and all that was known is lost."""


@pytest.fixture(scope="module")
def hints(shop: tuple[Path, dict[str, TableRef]]) -> Hints:
    return read_hints(stage_spec(shop[0], "read", shop[1], {}), 10, 2048, None)


def test_the_linear_part_by_hand() -> None:
    """A pair of a known and of an unknown number, at the second place, of a query of one word and its four pieces."""
    size, numbers = 2 * len(NAMES), np.full((1, len(NAMES)), np.nan, dtype=np.float32)
    numbers[0, 0], one = 3.0, np.array([0])
    texts, nothing = Texts(["lamp"], 2048), np.full((1, 1), -1)
    asked = Questions(texts, nothing, nothing, nothing, one, one, np.array([2]), numbers)
    edges = np.tile(np.linspace(0.0, 4.0, KNOTS, dtype=np.float32), (len(NAMES), 1))
    quantiles = Quantiles(edges, edges / 2.0 - 1.0)  # 3 is at .5
    weights = np.arange(size, dtype=np.float32) / 10.0
    words = np.zeros(2048, dtype=np.float32)
    buckets = [zlib.crc32(part.encode()) % 2048 for part in ("word lamp", "<la", "lam", "amp", "mp>")]
    assert len(set(buckets)) == 5
    words[buckets[0]] = 10.0
    linear = Linear(quantiles, weights, np.array([7.0, 0.25, *[7.0] * (PLACES - 2)], dtype=np.float32), words, -1.0)
    weights[0] = 2.0
    unknown = sum(weights[len(NAMES) + 1 :].tolist())
    assert linear(asked) == pytest.approx([0.5 * 2.0 + unknown + 0.25 + 10.0 / 5 - 1.0], rel=1e-6)


def test_the_linear_part_is_where_no_direction_leads_further_down(hints: Hints) -> None:
    """Its loss rises along what no regularisation holds back: the bias."""
    train, valid = hints.parts["train"], hints.parts["valid"]
    linear = Linear.fit(train, valid, Quantiles.of(train.questions.numbers), None)
    chances = Platt()(linear(train.questions))
    assert chances.mean() == pytest.approx(train.clicked.mean(), rel=1e-3)
    off = Platt(0.0, 0.05), Platt(0.0, -0.05)
    assert all(log_loss(one(linear(train.questions)), train.clicked) > log_loss(chances, train.clicked) for one in off)


def test_the_network_begins_where_the_linear_part_ends(hints: Hints) -> None:
    train, valid = hints.parts["train"], hints.parts["valid"]
    network = Network(NetworkConfig(width=16, buckets=2048, length=10, dense=(16,)))
    network.measure(train.questions.numbers)
    torch.nn.init.normal_(network.out.weight)
    hidden = hiding(len(train), 0.3, drawn(0, 0)).numpy()
    linear = Linear.fit(train, valid, network.quantiles, hidden)
    network.begin(linear)
    network.eval()
    odd = replace(valid.questions, place=valid.questions.place + 40)
    for asked in (train.questions, valid.questions, evaluate_hint_ranker.untold(valid.questions), odd):
        assert module.logits_of(network, asked) == pytest.approx(linear(asked), abs=1e-5)
    torch.nn.init.normal_(network.out.weight)
    assert module.logits_of(network, odd) != pytest.approx(linear(odd), abs=1e-2)


def test_training_never_ends_with_a_higher_log_loss_than_it_began_with(
    ranker: HintRanker, hints: Hints, shop: tuple[Path, dict[str, TableRef]], tmp_path: Path
) -> None:
    found = checks(shop[0])
    assert validated(ranker, hints) == pytest.approx(min(found), rel=1e-9) and min(found) <= found[0]
    lost = train(tmp_path, shop[1], WILD)
    found = checks(tmp_path)
    assert found[-1] > found[0] and lost.facts.steps == 0
    assert validated(lost, hints) == pytest.approx(found[0], rel=1e-9)
    assert not lost.network.out.weight.any()


def test_it_goes_on_with_what_was_learnt_on_a_linear_part_of_these_days(
    ranker: HintRanker, hints: Hints, shop: tuple[Path, dict[str, TableRef]], tmp_path: Path
) -> None:
    """A version whose linear part is of no use has that of today; one that cannot be bettered stays as it was."""
    slow = WILD | {"training": {"epochs": 1, "requests": 64, "check_steps": 2, "learning_rate": 1e-6}}

    def gone_on(start: HintRanker, name: str, config: dict[str, Any]) -> HintRanker:
        start.save(tmp_path / name)
        versions = {"hint_ranker": (ModelVersion("1", "champion", str(tmp_path / name)),)}
        return train(tmp_path / f"{name}_on", shop[1], config, models=versions)

    cut = deepcopy(ranker.network)
    with torch.no_grad():
        cut.wide.weight.zero_()
        cut.numbers.weight.zero_()
        cut.out.weight.normal_(std=0.001)
    mended = gone_on(replace(ranker, network=cut), "cut", slow)
    assert torch.equal(mended.network.wide.weight, ranker.network.wide.weight)
    before, linear, both = checks(tmp_path / "cut_on")[:3]
    assert linear < before and both < before and validated(mended, hints) <= linear * (1 + 1e-9)
    stays = gone_on(ranker, "whole", WILD)
    assert validated(stays, hints) <= validated(ranker, hints) * (1 + 1e-9)


def test_a_run_that_was_stopped_ends_with_the_same_bits(
    shop: tuple[Path, dict[str, TableRef]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = QUICK | {"training": {"epochs": 2, "requests": 64, "check_steps": 4}}
    whole = train(tmp_path / "whole", shop[1], config)
    taken, seen = module.Training._step, list[int]()

    def stopped(self: Any, *args: Any) -> float:
        seen.append(args[-1])
        if args[-1] == 7 and len(seen) == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return taken(self, *args)

    monkeypatch.setattr(module.Training, "_step", stopped)
    with pytest.raises(Preempted):
        train(tmp_path / "stopped", shop[1], config)
    assert train(tmp_path / "stopped", shop[1], config).version == whole.version
    assert seen.count(7) == 1, "it went on from the step at which it was stopped"


def test_a_shop_without_hints_is_left_out_with_the_reason(
    shop: tuple[Path, dict[str, TableRef]], tmp_path: Path
) -> None:
    tables = no_hints(shop[1], tmp_path / "empty")
    spec = stage_spec(tmp_path, "hint_ranker", tables, QUICK)
    run_stage(spec, hint_ranker.main)
    result = json.loads((spec.out_dir / "result.json").read_text())
    assert result["left_out"] == "the shop has shown no hints"
    after = stage_spec(tmp_path, "evaluate_hint_ranker", tables, {}, artifacts={"hint_ranker": spec.out})
    with pytest.raises(LeftOut, match="it needs hint_ranker, which was left out"):
        evaluate_hint_ranker.main(after)


def test_a_shop_where_nobody_clicked_or_nothing_is_held_out_is_left_out(
    shop: tuple[Path, dict[str, TableRef]], tmp_path: Path
) -> None:
    rows = pq.read_table(shop[1]["hint_training_set"].files[0])
    place = rows.schema.get_field_index("clicked")
    cases = {
        "none was clicked": rows.set_column(place, "clicked", [[0] * len(rows)]),
        "no hint is in the part test": rows.filter([part != "test" for part in rows["split_time"].to_pylist()]),
    }
    for why, table in cases.items():
        pq.write_table(table, tmp_path / "rows.parquet")
        tables = shop[1] | {"hint_training_set": TableRef((str(tmp_path / "rows.parquet"),))}
        with pytest.raises(LeftOut, match=why):
            hint_ranker.main(stage_spec(tmp_path, "hint_ranker", tables, QUICK))


def test_hints_of_requests_that_nobody_knows_are_refused(
    shop: tuple[Path, dict[str, TableRef]], tmp_path: Path
) -> None:
    rows = pq.read_table(shop[1]["query_samples"].files[0])
    pq.write_table(rows.slice(3), tmp_path / "rows.parquet")
    tables = shop[1] | {"query_samples": TableRef((str(tmp_path / "rows.parquet"),))}
    with pytest.raises(DataError, match="3 requests of hint_training_set are not in query_samples"):
        hint_ranker.main(stage_spec(tmp_path, "hint_ranker", tables, QUICK))


def test_calibration_by_hand() -> None:
    """Scores that say twice the logit, and one too little: the fit finds both."""
    rng = np.random.default_rng(0)
    true = rng.normal(-1.0, 1.0, 200_000)
    clicked = rng.random(len(true)) < 1.0 / (1.0 + np.exp(-true))
    platt = Platt.of(2.0 * true - 1.0, clicked)
    assert np.exp(platt.log_slope) == pytest.approx(0.5, abs=0.02) and platt.shift == pytest.approx(0.5, abs=0.03)
    assert log_loss(np.array([0.5, 0.25]), np.array([True, False])) == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)
