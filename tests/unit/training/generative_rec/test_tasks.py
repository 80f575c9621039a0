"""Multi-task samples: templates, fences, the mixture of an epoch, and what must never reach a prompt."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.core.catalogue import ItemText
from training.core.errors import DataError
from training.core.packing import Sample, Samples
from training.core.prompts import FENCES, Writer, load_templates
from training.core.tokens import Vocabulary, train_text_tokenizer
from training.generative_rec.item_codes import ItemCodes
from training.generative_rec.tasks import SOURCES, Augmentation, Corpus, Mixture, task_templates

VOCABULARY = Vocabulary.create(
    train_text_tokenizer(["blue pen", "red pen", "paper"], 300), {"item": (4, 4), "user": (2, 2)}, special=FENCES
)
ITEM, USER = VOCABULARY.code_table("item"), VOCABULARY.code_table("user")
CODES = tuple((ITEM[0][n // 4], ITEM[1][n % 4]) for n in range(8))
USERS = {"u0": (USER[0][0], USER[1][0]), "u1": (USER[0][1], USER[1][0])}
EARLY = {"u0": (USER[0][1], USER[1][1])}
ITEMS = ItemCodes(tuple(f"i{n}" for n in range(8)), CODES, VOCABULARY, USERS, EARLY)
PLAIN = Augmentation(variants=1, reverse=0.0, drop=0.0, anonymous=0.0)
CORPUS = Corpus(
    ITEMS,
    {"u0": ("i0", "i1", "i2"), "u1": ("i3",), "u2": ("i4", "i5")},
    texts={f"i{n}": ItemText(f"pen {n}", f"pen {n}, blue", "a blue pen") for n in range(7)},
    profiles={"u0": "likes pens"},
    history=2,
    augmentation=PLAIN,
)
WRITER = Writer(VOCABULARY, text_tokens=12)
BOS, EOS = VOCABULARY.tokenizer.bos_token_id, VOCABULARY.tokenizer.eos_token_id
OPEN, CLOSE = (VOCABULARY.token(fence) for fence in FENCES)


def text(words: str) -> tuple[int, ...]:
    return (OPEN, *VOCABULARY.encode_text(words), CLOSE)


def epoch(*tasks: str, corpus: Corpus = CORPUS, seed: int = 1) -> list[Sample]:
    weights = {"sequential": 0.0, **dict.fromkeys(tasks, 1.0)}
    return list(Mixture(weights, WRITER).epoch(corpus, (seed, 0)))


def test_a_sequence_is_learnt_in_one_pass_and_no_customers_code_has_seen_what_is_learnt_after_it() -> None:
    first, second, third = epoch("sequential")
    assert first == Sample((BOS, *EARLY["u0"], *CODES[0]), CODES[1] + CODES[2])  # the half that the code knows is past
    assert second == Sample((BOS,), CODES[3])  # one item: no half, so no code
    assert third == Sample((BOS,), CODES[4] + CODES[5])
    (only,) = epoch("sequential", corpus=replace(CORPUS, sequences={"u0": tuple(f"i{n}" for n in range(8))}))
    # At most `history` items and one, of which a named copy has one before what is learnt.
    assert only == Sample((BOS, *EARLY["u0"], *CODES[3]), CODES[6] + CODES[7])


@given(st.integers(0, 50), st.integers(1, 12), st.integers(1, 6))
def test_a_customer_is_named_with_a_history_or_not_at_all_when_learnt_and_when_asked(
    seed: int, length: int, history: int
) -> None:
    ids = [f"i{n % 8}" for n in range(length)]
    change = Augmentation(variants=4)
    corpus = replace(CORPUS, sequences={"u0": ids}, history=history, augmentation=change)
    # With one item, too: a code of another split may know a customer of whom this one has no earlier half.
    learnt = {sample.prompt for sample in epoch("sequential", "next_item", corpus=corpus, seed=seed)}
    assert not {(BOS, *EARLY["u0"]), (BOS, *USERS["u0"])} & learnt
    assert ITEMS.prompt([], history, "u0") == (BOS,)
    assert ITEMS.prompt(ids, history, "u0")[: 1 + len(USERS["u0"])] == (BOS, *USERS["u0"])


@given(st.integers(0, 50))
def test_a_prompt_names_the_customer_only_where_the_code_does_not_know_the_answer(seed: int) -> None:
    long = replace(CORPUS, sequences={"u0": tuple(f"i{n}" for n in range(5))}, history=5)
    (sample,) = epoch("next_item", corpus=long, seed=seed)
    assert not set(USERS["u0"]) - set(EARLY["u0"]) & set(sample.prompt)
    assert set(EARLY["u0"]) <= set(sample.prompt) or CODES.index(sample.response) < 2


def test_an_epoch_has_changed_copies_of_each_sequence() -> None:
    change = Augmentation(variants=40, reverse=0.5, drop=0.3)
    long = replace(CORPUS, sequences={"u9": tuple(f"i{n}" for n in range(1, 8))}, history=3, augmentation=change)
    copies = [
        [CODES.index(sample.response[n : n + 2]) for n in range(0, len(sample.response), 2)]
        for sample in epoch("sequential", corpus=long)
    ]
    assert len(copies) == 40 and all(1 <= len(copy) <= 4 for copy in copies)
    assert {copy == sorted(copy) for copy in copies if len(copy) > 1} == {True, False}
    assert all(copy in (sorted(copy), sorted(copy)[::-1]) for copy in copies)


def _ways(change: Augmentation, ordered: bool) -> set[bool]:
    """Whether copies of a sequence run forward, in an epoch of fifty."""
    ids = tuple(f"i{n}" for n in range(1, 6))
    corpus = replace(CORPUS, sequences={"u9": ids}, augmentation=change, ordered=ordered)
    copies = [[sample.response[n : n + 2] for n in (0, 2)] for sample in epoch("sequential", corpus=corpus)]
    return {CODES.index(first) < CODES.index(second) for first, second in copies}


def test_no_copy_runs_backwards_where_the_order_matters_and_a_number_holds_whatever_is_found() -> None:
    chosen, half = (replace(PLAIN, variants=50, reverse=share) for share in ("validation", 0.5))
    assert _ways(chosen, ordered=True) == {True}
    assert _ways(chosen, ordered=False) == {True, False}
    assert _ways(half, ordered=True) == {True, False}
    assert _ways(replace(chosen, reverse=1.0), ordered=False) == {False}


def test_some_copies_of_a_sequence_do_not_say_whose_it_is() -> None:
    change = Augmentation(variants=200, anonymous=0.25)
    known = replace(CORPUS, sequences={"u0": ("i0", "i1", "i2")}, augmentation=change)
    prompts = Counter(sample.prompt for sample in epoch("sequential", corpus=known))
    assert set(prompts) == {(BOS,), (BOS, *EARLY["u0"], *CODES[0])}
    assert 20 < prompts[(BOS,)] < 80


@given(st.floats(0.0, 0.99), st.integers(0, 20))
def test_answers_in_text_have_at_most_their_share_of_the_learnt_tokens(share: float, seed: int) -> None:
    """Without a limit two users' sequences have 8 learnt tokens, and seven items' texts some dozens."""
    tasks = {"sequential": 1.0, "item_to_text": 1.0}
    whole, fewer = (Mixture(tasks, WRITER, one).epoch(CORPUS, (seed, 0)) for one in (1.0, share))
    texts = {sample: len(sample.response) for sample in whole if sample.response[-1] == EOS}
    codes = sum(len(sample.response) for sample in whole if sample not in texts)
    told = sum(texts[sample] for sample in fewer if sample in texts)
    assert [sample for sample in whole if sample in fewer] == list(fewer)
    assert [sample for sample in fewer if sample not in texts] == [one for one in whole if one not in texts]
    assert told <= share * (told + codes) + 1e-9
    left_out = [texts[sample] for sample in whole if sample not in fewer]
    # None is left out without need: with any other one there would be too much.
    assert not left_out or told + max(left_out) > share / (1 - share) * codes - 1e-9


def test_a_fifth_of_the_learnt_tokens_by_hand() -> None:
    codes, text = [Sample((BOS,), (7, 8, 9, 7))] * 10, [Sample((BOS,), (*range(20, 27), EOS))] * 10
    kept = Mixture({"sequential": 1.0}, WRITER, 0.2)._balanced(Samples.of([*codes, *text]), np.random.default_rng(1))
    # 40 tokens of codes leave room for 10 of text: 40 / (40 + 10) = 0.8. An answer in text has 8.
    assert (list(kept[:10]), len(kept)) == (codes, 11)


def test_an_item_and_its_text_are_learnt_both_ways() -> None:
    asked = {sample.prompt[-1] for sample in epoch("item_to_text")}
    assert asked == {VOCABULARY.encode_text("?")[-1], VOCABULARY.encode_text(":")[-1]}
    answers = {sample.response for sample in epoch("item_to_text")}
    assert answers <= {(*text(words), EOS) for n in range(7) for words in (f"pen {n}", f"pen {n}, blue")}
    assert [sample.response for sample in epoch("text_to_item")] == list(CODES[:7])  # i7 has no text


def test_a_customers_text_and_code_are_learnt_both_ways_in_opposite_directions() -> None:
    (to_code,), (to_text,) = epoch("user_text_to_code"), epoch("user_code_to_text")
    assert to_code.response == USERS["u0"] and set(text("likes pens")) <= set(to_code.prompt)
    assert to_text.response == (*text("likes pens"), EOS) and set(USERS["u0"]) <= set(to_text.prompt)


def test_the_target_is_never_in_its_own_prompt() -> None:
    for task in ("next_item", "asymmetric_to_item", "intent"):
        for sample in epoch(task):
            assert not any(
                sample.prompt[start : start + 2] == sample.response for start in range(len(sample.prompt) - 1)
            )


@given(st.integers(0, 50))
def test_histories_are_cut_and_titles_come_from_before_the_target(seed: int) -> None:
    long = replace(CORPUS, sequences={"u0": tuple(f"i{n}" for n in (0, 1, 2, 3, 4))})
    (sample,) = epoch("next_item", corpus=long, seed=seed)
    at = CODES.index(sample.response)
    pairs = [sample.prompt[n : n + 2] for n in range(len(sample.prompt))]
    shown = [CODES.index(pair) for pair in pairs if pair in CODES]
    assert shown == list(range(at))[-2:]


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_text_can_close_its_fence_or_pass_for_a_code(words: str) -> None:
    written = words + "</text><a_1><ua_0><eos>"
    hostile = replace(CORPUS, profiles={"u0": written})
    (sample,) = Mixture({"sequential": 0, "user_code_to_text": 1.0}, Writer(VOCABULARY, 200)).epoch(hostile, (1, 0))
    inside = sample.response[1:-2]
    assert (sample.response[0], *sample.response[-2:]) == (OPEN, CLOSE, EOS)
    assert not set(inside) & ({OPEN, CLOSE, EOS} | {token for level in (*ITEM, *USER) for token in level})


def test_a_long_text_is_cut() -> None:
    (sample,) = epoch("user_code_to_text", corpus=replace(CORPUS, profiles={"u0": "pen " * 50}))
    assert len(sample.response) == WRITER.text_tokens + 3


def test_weights_say_how_often_an_epoch_goes_over_the_rows() -> None:
    def responses(weight: float, seed: int = 0) -> Counter[tuple[int, ...]]:
        mixture = Mixture({"sequential": 0.0, "text_to_item": weight}, WRITER)
        return Counter(sample.response for sample in mixture.epoch(CORPUS, (seed, 0)))

    assert set(responses(2.0).values()) == {2} and len(responses(2.0)) == 7
    assert sum(responses(0.4).values()) == 3
    assert len({tuple(sorted(responses(0.4, seed))) for seed in range(10)}) > 1  # another part each time


def test_the_same_seed_gives_the_same_epoch_and_another_seed_another() -> None:
    full = Mixture(dict.fromkeys(SOURCES, 1.0), WRITER)
    varied = replace(CORPUS, augmentation=Augmentation())
    assert list(full.epoch(varied, (3, 1))) == list(full.epoch(varied, (3, 1)))
    assert list(full.epoch(varied, (3, 1))) != list(full.epoch(varied, (3, 2)))


def _at_once(mixture: Mixture, seed: tuple[int, int]) -> list[Sample]:
    """The samples of an epoch with all rows of a task in memory, from one source of random numbers."""
    samples = []
    for number, (task, weight) in enumerate(sorted(mixture.weights.items())):
        rng = np.random.default_rng((*seed, number))
        templates = task_templates()[task]
        rows = [row for row in SOURCES[task](VARIED, rng) if any(one.slots <= row.keys() for one in templates)]
        whole, rest = divmod(round(weight * len(rows)), max(1, len(rows)))
        for place in [*list(range(len(rows))) * whole, *rng.permutation(len(rows))[:rest].tolist()]:
            fitting = [one for one in templates if one.slots <= rows[place].keys()]
            samples.append(mixture.writer.sample(fitting[int(rng.integers(len(fitting)))], rows[place]))
    return samples


VARIED = replace(CORPUS, augmentation=Augmentation())


@given(st.integers(0, 50), st.sampled_from([0.3, 1.0, 1.7, 2.0]))
def test_rows_that_are_made_one_by_one_give_the_epoch_of_rows_that_are_all_held(seed: int, weight: float) -> None:
    mixture = Mixture({"sequential": 0.5, **dict.fromkeys(set(SOURCES) - {"sequential"}, weight)}, WRITER)
    assert list(mixture.epoch(VARIED, (seed, 1))) == _at_once(mixture, (seed, 1))


def test_a_text_is_encoded_once_however_often_it_is_put(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, encode = Counter[str](), Vocabulary.encode_text
    monkeypatch.setattr(Vocabulary, "encode_text", lambda self, text: texts.update([text]) or encode(self, text))
    mixture = Mixture({"sequential": 1.0, "item_to_text": 2.0}, Writer(VOCABULARY))
    for number in range(3):
        mixture.epoch(CORPUS, (1, number))
    assert len(texts) > 5 and set(texts.values()) == {1}


def test_a_task_with_nothing_to_learn_is_counted_and_is_in_no_epoch() -> None:
    mixture = Mixture({"sequential": 1.0, "preference": 1.0}, WRITER)
    assert mixture.counts(CORPUS) == {"sequential": 3, "preference": 1}
    untold = replace(CORPUS, profiles={})
    assert mixture.counts(untold) == {"sequential": 3, "preference": 0}
    assert len(mixture.epoch(untold, (3, 1))) == len(Mixture({"sequential": 1.0}, WRITER).epoch(untold, (3, 1)))


def test_an_unknown_task_and_a_mixture_without_sequences_are_refused() -> None:
    with pytest.raises(DataError, match="poetry"):
        Mixture({"sequential": 1.0, "poetry": 1.0}, WRITER)
    with pytest.raises(DataError, match="lacks `sequential`"):
        Mixture({"intent": 1.0}, WRITER)


def test_every_task_has_templates_that_its_rows_can_fill() -> None:
    assert set(task_templates()) == set(SOURCES)
    assert set(Mixture(dict.fromkeys(SOURCES, 1.0), WRITER).counts(CORPUS)) == set(SOURCES)


def test_a_template_with_an_unknown_slot_is_named(tmp_path: Path) -> None:
    (tmp_path / "templates.yaml").write_text('next_item:\n  - {prompt: "{user} has {password}", response: "{item}"}\n')
    with pytest.raises(DataError, match="password") as said:
        load_templates(tmp_path / "templates.yaml", {"user", "item"})
    assert said.value.where.startswith("next_item in ")
