"""The collaborative encoder: DIN by its equations, users pooled from the training part only, resumed = straight."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.training.scid_kit import CONFIG, collaborative_spec
from training.core import ranking, steps
from training.core.errors import DataError, Preempted
from training.generative_rec.collaborative_vectors import CollaborativeVectors, pooled_users
from training.generative_rec.covisit_vectors import covisit_vectors
from training.generative_rec.din import DIN, AttentionUnit, Dice, sampled_softmax
from training.generative_rec.interactions import NO_ITEM, Interactions, run_starts
from training.generative_rec.stages import collaborative
from training.generative_rec.stages.collaborative import Config, Encoder, learning_rate
from training.next_item.samples import NextItem


def one(user: str, item: str, day: int, history: Sequence[str], part: str = "train") -> NextItem:
    return NextItem(user, date(2020, 1, 1) + timedelta(days=day), item, tuple(history), part)


def test_dice_is_its_equation_on_a_hand_worked_batch() -> None:
    dice = Dice(1)
    with torch.no_grad():
        dice.slope.fill_(0.25)
    # mean 2, deviation 1: standardised -1 and 1; p = 0.2689 and 0.7311; y = p x + (1 - p) x / 4
    found = dice(torch.tensor([[1.0], [3.0]]))
    assert found.flatten().tolist() == pytest.approx([0.2689 + 0.7311 / 4, 3 * 0.7311 + 3 * 0.2689 / 4], rel=1e-3)


def test_dice_uses_running_statistics_when_it_does_not_train() -> None:
    dice = Dice(1).eval()
    alone = dice(torch.tensor([[3.0]]))
    assert torch.equal(alone, dice(torch.tensor([[3.0], [90.0]]))[:1])


def test_the_attention_unit_is_a_layer_over_key_query_difference_and_product() -> None:
    torch.manual_seed(0)
    unit = AttentionUnit(4, (6, 3)).eval()
    keys, queries = torch.randn(2, 4), torch.randn(1, 3, 4)
    by_key, by_query, by_difference, by_product = torch.randn(4, 6, 4)
    with torch.no_grad():
        unit.key.weight.copy_(by_key - by_difference)
        unit.query.weight.copy_(by_query + by_difference)
        unit.product.weight.copy_(by_product)
    k, q = keys.unsqueeze(1).expand(2, 3, 4), queries.expand(2, 3, 4)
    weight = torch.cat([by_key, by_query, by_difference, by_product], dim=1)
    hidden = torch.cat([k, q, q - k, q * k], dim=2) @ weight.T + unit.key.bias
    assert torch.allclose(unit(keys, queries, torch.tensor([0, 0])), unit.rest(hidden).squeeze(-1), atol=1e-5)


def test_padding_changes_no_score() -> None:
    torch.manual_seed(0)
    network = DIN(5, 4, (6, 3), (8, 4)).eval()
    candidates = torch.tensor([[0, 1, 2]])
    short = network(torch.tensor([[3, 4]]), candidates)
    assert torch.allclose(short, network(torch.tensor([[NO_ITEM, NO_ITEM, 3, 4]]), candidates), atol=1e-6)


def test_a_history_is_a_sum_so_an_item_twice_counts_twice() -> None:
    torch.manual_seed(0)
    network = DIN(5, 4, (6, 3), (8, 4)).eval()
    network.head = torch.nn.Sequential(torch.nn.Linear(12, 1, bias=False))
    with torch.no_grad():
        network.head[0].weight.copy_(torch.tensor([[1.0] * 4 + [0.0] * 8]))
    candidates = torch.tensor([[0, 1]])
    once, twice = (network(torch.tensor([[NO_ITEM, 3] if n == 1 else [3, 3]]), candidates) for n in (1, 2))
    assert torch.allclose(twice, 2 * once, atol=1e-6)


def test_the_sampled_softmax_takes_off_log_q() -> None:
    scores, candidates = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[0, 1, 2]])
    q = torch.tensor([0.5, 0.4, 0.1])
    # e^s / q = 5.4366, 18.4726, 16.4872: -ln(5.4366 / 40.3964) = 2.0055
    assert float(sampled_softmax(scores, candidates, q.log())) == pytest.approx(2.0055, rel=1e-4)


def test_with_uniform_draws_the_correction_cancels() -> None:
    scores, candidates = torch.randn(4, 6), torch.randint(1, 9, (4, 6))
    candidates[:, 0] = 0
    plain = sampled_softmax(scores, candidates, torch.zeros(9))
    assert float(plain) == pytest.approx(float(sampled_softmax(scores, candidates, torch.full((9,), -math.log(9)))))


def test_a_negative_that_is_the_target_does_not_count() -> None:
    scores = torch.tensor([[1.0, 1.0, 0.0]])
    loss = sampled_softmax(scores, torch.tensor([[7, 7, 1]]), torch.zeros(9))
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1.0)))


def test_negatives_are_pushed_by_their_score_alone_however_often_they_are_drawn() -> None:
    scores, q = torch.tensor([0.5, 0.3, -0.4], requires_grad=True), torch.tensor([0.2, 0.7, 0.1])
    drawn = torch.multinomial(q, 200_000, replacement=True, generator=torch.Generator().manual_seed(0)).view(1, -1)
    candidates = torch.cat([torch.tensor([[0]]), drawn], dim=1)
    torch.autograd.backward(sampled_softmax(scores[candidates], candidates, q.log()))
    assert scores.grad is not None
    # Without the correction item 1, drawn seven times as often, would be pushed seven times as hard.
    assert float(scores.grad[1] / scores.grad[2]) == pytest.approx(math.exp(0.3 + 0.4), rel=0.03)


def counted(sequences: Sequence[Sequence[int]], size: int) -> Interactions:
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    users = torch.arange(len(sequences)).repeat_interleave(lengths)
    items = torch.tensor([item for sequence in sequences for item in sequence])
    return Interactions(tuple(map(str, range(len(sequences)))), tuple(map(str, range(size))), users, items,
                        run_starts(lengths))  # fmt: skip


def test_covisit_vectors_give_back_the_mutual_information_of_pairs() -> None:
    # Pairs 0-1 (twice), 2-3 (three times), 1-2 (once); totals 2, 3, 4, 3, smoothed 1.6818, 2.2795, 2.8284, 2.2795.
    known = counted([(0, 1), (0, 1), (2, 3), (2, 3), (2, 3), (1, 2), (4,)], 6)
    torch.manual_seed(0)
    found = covisit_vectors(known, 8)
    assert found.shape == (6, 8)
    assert found[4:].abs().sum() == 0 and found[:, 6:].abs().sum() == 0
    assert float(found[:4].norm(dim=1).mean()) == pytest.approx(1.0)
    # e_a . e_b is (M M')^(1/2): every eigenvalue of M in size. M(0, 1) = log(2 * 9.0692 / (2 * 2.2795)) = 1.3810.
    matrix = torch.zeros(4, 4)
    for a, b, value in ((0, 1, 1.3810), (1, 0, 1.2799), (1, 2, 0.0663), (2, 1, 0.0), (2, 3, 1.0933), (3, 2, 1.1653)):
        matrix[a, b] = value
    u, s, _ = torch.linalg.svd(matrix)
    by_hand = (u * s) @ u.T
    scale = by_hand.diagonal().sqrt().mean()
    assert torch.allclose(found[:4] @ found[:4].T, by_hand / scale**2, atol=1e-3)


def test_items_start_near_what_is_taken_with_them() -> None:
    torch.manual_seed(0)
    network, vectors = DIN(3, 4, (6, 3), (8, 4)), torch.eye(3, 4)
    rows = network.item.weight.detach()
    length = rows.norm(dim=1).mean()
    vectors[2] = 0.0
    network.start_items(vectors)
    assert torch.cosine_similarity(rows[:2], vectors[:2]).min() > 0.98
    assert float(rows[0].norm() / length) == pytest.approx(1.0, abs=0.2)
    assert 0 < float(rows[2].norm() / length) < 0.2


def test_a_user_is_the_softmax_of_its_items_agreement_with_their_mean() -> None:
    items = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    known = Interactions(("u", "v"), ("a", "b", "c"), torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 2]),
                         torch.tensor([0, 3, 4]))  # fmt: skip
    # u: mean (4/3, 2/3); agreements / sqrt(4): 4/3, 4/3, 2/3; weights 0.39786, 0.39786, 0.20427
    users = pooled_users(items, known)
    assert users[0].tolist() == pytest.approx([4 * 0.397864, 2 * 0.204271, 0.0, 0.0], rel=1e-4)
    assert torch.allclose(users[1], items[2])


def test_users_are_the_same_to_the_bit_however_few_events_have_a_vector_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, 40, (50,), generator=source)
    users = torch.arange(50).repeat_interleave(lengths)
    touched = torch.randint(30, (len(users),), generator=source)
    names = tuple(f"u{n}" for n in range(50)), tuple(f"i{n}" for n in range(30))
    known = Interactions(*names, users, touched, run_starts(lengths))
    items = torch.randn(30, 8, generator=source)
    whole = pooled_users(items, known)
    monkeypatch.setattr(ranking, "VALUES_AT_ONCE", 24)
    assert [len(part) for part in known.parts(8)][:2] == [3, 3]
    assert torch.equal(pooled_users(items, known), whole)


def test_users_are_made_of_training_items_only_whatever_the_rest_holds() -> None:
    train = [one("u", "a", 1, []), one("u", "b", 2, ["a"]), one("v", "c", 1, []), one("v", "a", 2, ["c"])]
    held = [one("u", "c", 3, ["a", "b"], "valid"), one("u", "d", 4, ["a", "b", "c"], "test")]
    planted = [replace(held[0], item_id="d"), replace(held[1], item_id="a", history=("d", "d", "d"))]
    items = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    vectors = [
        pooled_users(items, Interactions.of_training([*train, *rest], ("a", "b", "c", "d"), 2))
        for rest in (held, planted, [])
    ]
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])


def test_histories_are_what_the_same_user_did_before() -> None:
    samples = [one("u", "a", 1, []), one("u", "b", 2, ["a"]), one("u", "c", 3, ["a", "b"]), one("v", "b", 1, [])]
    known = Interactions.of_training(samples, ("a", "b", "c"), 1)
    assert known.targets().tolist() == [1, 2]
    assert known.histories(torch.tensor([1, 2]), 3).tolist() == [[-1, -1, 0], [-1, 0, 1]]
    assert known.histories(torch.tensor([2]), 1).tolist() == [[1]]
    assert known.touched(torch.tensor([[0], [1]]), torch.tensor([0, 1, 2])).tolist() == [
        [True, True, True],
        [False, True, False],
    ]


def test_the_first_halves_are_rounded_down_and_know_nothing_of_the_second() -> None:
    lines = [("u", "abcab"), ("v", "c"), ("w", "ba")]
    samples = [one(user, item, day, line[:day]) for user, line in lines for day, item in enumerate(line)]
    halves = Interactions.of_training(samples, ("a", "b", "c"), 0).first_halves()
    assert halves.user_ids == ("u", "w")
    assert (halves.users.tolist(), halves.items.tolist(), halves.starts.tolist()) == ([0, 0, 1], [0, 1, 1], [0, 2, 3])


def test_covisits_count_both_ways_within_reach_and_never_across_users() -> None:
    samples = [one("u", "a", 1, []), one("u", "b", 2, ["a"]), one("v", "a", 1, []), one("v", "b", 2, ["a"]),
               one("v", "c", 3, ["a", "b"])]  # fmt: skip
    keys, counts = Interactions.of_training(samples, ("a", "b", "c"), 1).covisits(reach=1)
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == {1: 2, 3: 2, 5: 1, 7: 1}


def test_a_user_with_one_event_is_an_error_that_names_the_user_unless_admitted() -> None:
    samples = [one("u", "a", 1, []), one("v", "a", 1, []), one("v", "b", 2, ["a"]), one("w", "b", 9, [], "test")]
    with pytest.raises(DataError, match=r"2 users have fewer than 2 training items\n.*users u, w\n"):
        Interactions.of_training(samples, ("a", "b"), 2)
    assert Interactions.of_training(samples, ("a", "b"), 0).user_ids == ("u", "v")


def test_validation_samples_without_a_history_are_refused_before_a_step() -> None:
    samples = [one("u", "a", 1, []), one("u", "b", 2, ["a"]), one("v", "b", 9, [], "valid")]
    known = Interactions.of_training(samples, ("a", "b"), 0)
    with pytest.raises(DataError, match="0 validation samples with a history"):
        Encoder(known, samples[2:], Config(), 1)


def test_no_covisits_at_all_leave_every_vector_at_zero_and_two_items_have_two_components() -> None:
    alone = Interactions.of_training([one("u", "a", 1, []), one("u", "a", 2, ["a"])], ("a",), 1)
    assert torch.equal(covisit_vectors(alone, 4), torch.zeros(1, 4))
    single = Interactions.of_training([one("u", "a", 1, []), one("v", "b", 1, [])], ("a", "b", "c"), 1)
    assert torch.equal(covisit_vectors(single, 4), torch.zeros(3, 4))
    pair = Interactions.of_training([one("u", "a", 1, []), one("u", "b", 2, ["a"])], ("a", "b", "c"), 1)
    found = covisit_vectors(pair, 4)
    assert torch.isfinite(found).all()
    assert found.norm(dim=1).tolist() == pytest.approx([1.0, 1.0, 0.0])
    assert not found[:, 3].any()  # fewer items than the width


def test_the_rate_warms_up_and_then_falls_to_its_end() -> None:
    config = Config(steps=101, warmup_steps=10, learning_rate=1e-3, final_rate=1e-5)
    assert learning_rate(0, config) == pytest.approx(1e-4)
    assert learning_rate(10, config) == pytest.approx(1e-3)
    assert learning_rate(55, config) == pytest.approx(1e-4)
    assert learning_rate(100, config) == pytest.approx(1e-5)


def test_the_stage_learns_which_items_follow_each_other(tmp_path: Path) -> None:
    result = collaborative.main(collaborative_spec(tmp_path, steps=120, check_steps=40))
    assert result.metrics["din.recall@10"] > result.metrics["popularity.recall@10"] + 0.2
    vectors = CollaborativeVectors.load(tmp_path / "out")
    assert len(vectors.items) == len(vectors.item_ids) == 60
    assert torch.isfinite(vectors.users).all()


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        collaborative.main(replace(collaborative_spec(tmp_path / name), seed=seed))
        found.append(CollaborativeVectors.load(tmp_path / name / "out"))
    assert torch.equal(found[0].items, found[1].items)
    assert torch.equal(found[0].users, found[1].users)
    assert not torch.equal(found[0].items, found[2].items)


def killed_after(count: int, monkeypatch: pytest.MonkeyPatch, spec: Any, main: Any) -> None:
    """Run the stage; SIGTERM arrives in its step number `count`."""
    taken, original = [], steps.drawn

    def counted(*arguments: Any) -> torch.Generator:
        taken.append(arguments)
        if len({step for _, step, *_ in taken if step >= 0}) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(collaborative, "drawn", counted)
    with pytest.raises(Preempted):
        main(spec)
    monkeypatch.undo()


def test_a_killed_run_that_goes_on_ends_with_the_vectors_of_a_straight_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    straight, broken = (collaborative_spec(tmp_path / name) for name in ("straight", "killed"))
    collaborative.main(straight)
    killed_after(13, monkeypatch, replace(broken, tables=straight.tables), collaborative.main)
    result = collaborative.main(replace(broken, tables=straight.tables))
    assert result.resumed_from == 13
    expected, found = (
        load_file(tmp_path / name / "out" / "collaborative.safetensors") for name in ("straight", "killed")
    )
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    lines = [(tmp_path / name / "out" / "metrics.jsonl").read_text() for name in ("straight", "killed")]
    assert lines[0] == lines[1]
    assert [json.loads(line)["step"] for line in lines[0].splitlines()] == [10, 20, CONFIG["steps"]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: {**t, "items": t["items"][:-1]}, r"60 item ids \(60 different\) for 59 vectors"),
        (lambda t: {**t, "users": t["users"] * float("nan")}, r"users have an embedding that is not finite\n.*users "),
    ],
)
def test_broken_vectors_are_refused(tmp_path: Path, change: Any, reason: str) -> None:
    collaborative.main(collaborative_spec(tmp_path))
    file = tmp_path / "out" / "collaborative.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(file)).items()}, file)
    with pytest.raises(DataError, match=reason):
        CollaborativeVectors.load(tmp_path / "out")


def test_a_truncated_file_of_vectors_is_named(tmp_path: Path) -> None:
    collaborative.main(collaborative_spec(tmp_path))
    file = tmp_path / "out" / "collaborative.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"(?s)missing or broken.*collaborative\.safetensors"):
        CollaborativeVectors.load(tmp_path / "out")
