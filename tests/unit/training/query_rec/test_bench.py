"""The lists that the benchmark compares: greedy ones of both sides are the same, and both sides keep to the grammar."""

from __future__ import annotations

import pytest

from training.query_rec import bench
from training.query_rec.hint_model import HintModel
from training.query_rec.hint_writer import SampleConfig

_SMALL = {
    "examples": 60,
    "written": 1,
    "text_vocabulary": 400,
    "backbone": {
        "hidden_size": 48, "layers": 2, "heads": 2, "kv_heads": 1, "head_size": 24, "intermediate_size": 96,
        "max_positions": 512,
    },
    "loop": {"epochs": 20, "rows": 2, "row_tokens": 384, "learning_rate": 3e-3},
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HintModel:
    return bench.learnt(tmp_path_factory.mktemp("lists"), "demo", _SMALL)


def test_greedy_lists_are_those_of_generate(model: HintModel) -> None:
    """Whether it writes them one by one or as one padded batch."""
    people = [one.told for one in bench.examples(12, model.lists.behaviours, "test", seed=1)]
    ours = bench.greedy_lists(model, people)
    assert ours == bench.one_by_one(model, people, bench.GREEDY) == bench.as_one_batch(model, people, bench.GREEDY)
    assert len({answer for (answer,) in ours}) > 1


def test_what_the_peer_draws_are_lists(model: HintModel) -> None:
    people = [one.told for one in bench.examples(3, model.lists.behaviours, "test", seed=1)]
    drawn = bench.one_by_one(model, people, SampleConfig(samples=2, temperature=1.5, top_p=1.0))
    assert [len(answers) for answers in drawn] == [2, 2, 2]
    assert all(model.queries(answer) for answers in drawn for answer in answers)
    assert drawn[0][0] != drawn[0][1]
