"""Odd titles, ids, profiles and users of `field-cases` where a judge meets them: evidence, prompts, teacher and night.

They are read from the folder that `PLUMBLINE_SHARED_DATA` names; `test_small_shops` has a few of them by heart.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.training import judge_kit
from tests.unit.training.judge_kit import evidence_of
from tests.unit.training.semantic_judge import scorer_kit
from tests.unit.training.semantic_judge.night_kit import DAY, lists, night_spec, packaged, table
from training.core.prompts import FENCES
from training.semantic_judge import encoder
from training.semantic_judge.aspects import aspects
from training.semantic_judge.evidence import NAMES, Evidence
from training.semantic_judge.examples import Candidate, Cases, Examples, Hindsight, Item, UserState
from training.semantic_judge.prompts import PromptConfig
from training.semantic_judge.scorer import LanguageScorer
from training.semantic_judge.sizes import prompt_tokens
from training.semantic_judge.stages import score
from training.semantic_judge.teachers import endpoint
from training.semantic_judge.teachers.chat import EndpointConfig
from training.semantic_judge.teachers.endpoint import EndpointTeacher

FOLDER = Path(os.environ.get("PLUMBLINE_SHARED_DATA", os.devnull)) / "field-cases"
pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="PLUMBLINE_SHARED_DATA names no folder with field-cases"),
]
ODD = 20
"""So many items of the odd shop are odd; the others are plain."""


@dataclass(frozen=True)
class Shop:
    """`items` of the odd shop, with a text of 220,000 letters among the `profiles`; `users` with odd names."""

    items: list[Item]
    users: list[str]
    profiles: list[str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, before = tmp_path_factory.mktemp("odd"), csv.field_size_limit(10_000_000)
    subprocess.run([sys.executable, str(FOLDER / "25-weird-shop" / "make.py"), str(folder)], check=True)
    items = [
        Item(row["item_id"], row["title"] or None, row["brand"] or None, "Misc", 3.0, f"{row['title']}. {row['brand']}")
        for row in rows_of(folder / "items.csv")
    ]
    events = [*rows_of(folder / "events" / "a.csv"), *rows_of(FOLDER / "18-null-strings" / "events" / "n.csv")]
    odd = [row["user_id"] for row in events if not row["user_id"][1:].isdecimal()]
    long = [row["description"] for row in rows_of(FOLDER / "15-long-field" / "items.csv")]
    yield Shop(items, list(dict.fromkeys(odd)), [*long[:1], *(item.title or "" for item in items[:ODD])])
    csv.field_size_limit(before)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cases_of(shop: Shop, evidence: Evidence) -> Cases:
    """Each odd user, one without a history among them, beside each odd item."""
    users = [
        UserState(user, DAY, tuple(item.item_id for item in shop.items[n : n + own]), (5.0,) * own, profile, profile)
        for n, (user, profile) in enumerate(zip(shop.users, shop.profiles, strict=False))
        for own in (min(n, 6),)
    ]
    asked = [(user, Candidate(item.item_id, 4.0, 3)) for user in users for item in shop.items[:ODD]]
    return Cases.of(evidence.catalogue, [user for user, _ in asked], [item for _, item in asked])


def test_evidence_of_odd_texts_is_numbers_and_words_of_ours_and_comes_back_from_its_folder(
    shop: Shop, tmp_path: Path
) -> None:
    evidence = evidence_of(shop.items, shop.profiles)
    cases = cases_of(shop, evidence)
    numbers = evidence.numbers(cases)
    assert len(cases) > 100 and numbers.shape == (len(cases), len(NAMES)) and not np.isinf(numbers).any()
    said = [*evidence.words(numbers), *evidence.sentences(numbers)]
    wrote = [text for item in shop.items for text in (item.title, item.brand) if text and len(text) > 3]
    assert not [text for text in wrote for line in set(said) if text in line]
    evidence.save(tmp_path)
    again = Evidence.load(tmp_path, judge_kit.encode)
    assert list(again.catalogue.items) == list(evidence.catalogue.items)
    np.testing.assert_array_equal(again.numbers(cases_of(shop, again)), numbers)


def test_prompts_of_odd_texts_keep_to_their_fences_and_their_length_and_are_judged(shop: Shop) -> None:
    evidence = evidence_of(shop.items, shop.profiles)
    cases = cases_of(shop, evidence).chosen(np.arange(0, 100, 3))
    asked = scorer_kit.CasePrompts(scorer_kit.vocabulary(), aspects(True), PromptConfig(), evidence)
    opened, closed = (asked.vocabulary.token(fence) for fence in FENCES)
    for tokens in asked.whole(cases):
        fences = [token for token in tokens if token in (opened, closed)]
        assert fences == [opened, closed] * (len(fences) // 2) and len(fences) >= 2
        assert tokens.count(asked.vocabulary.tokenizer.eos_token_id) == 0
        assert len(tokens) <= prompt_tokens(PromptConfig(), own=True)
    found = LanguageScorer.of(scorer_kit.model(asked.vocabulary), asked, reason_tokens=12).chances(cases)
    assert all(np.allclose(own.sum(axis=1), 1.0, atol=1e-4) for own in found)


def test_a_teacher_is_shown_each_odd_example_in_a_line_of_its_own_within_one_fence(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence, said = evidence_of(shop.items, shop.profiles), list[Any]()
    cases = cases_of(shop, evidence)

    class Silent:
        def __init__(self, *_: object) -> None: ...

        async def ask(self, messages: Any, answer_tokens: int) -> str:
            said.append(messages)
            return ""

    monkeypatch.setattr(endpoint, "Chat", Silent)
    config = EndpointConfig("http://127.0.0.1:1/v1", "wise", batch=4)
    teacher = EndpointTeacher(config, aspects(True), evidence, tmp_path / "answers", tmp_path / "spent")
    nothing, none = np.zeros(len(cases) + 1, dtype=np.int64), np.zeros(len(cases), dtype=bool)
    unknown = np.full(len(cases), np.nan, dtype=np.float32)
    examples = Examples(
        cases, Hindsight(nothing, nothing[:0], unknown, none, none), np.zeros(len(cases), dtype=np.int8)
    )
    labels = teacher.teach(examples, np.arange(len(cases)), evidence.numbers(cases))
    assert labels.failures == {"unparsable": len(set(texts_of(said)))} and len(labels.levels) == len(cases)
    for _, asked in said:
        lines = asked["content"].split("\n")
        assert lines[0] == "<data>" and lines[-1] == "</data>" and 3 <= len(lines) <= 6
        assert asked["content"].count("<") == 2 and len(asked["content"]) < 10_000


def texts_of(said: list[Any]) -> list[str]:
    """What was asked of each example; each is JSON of its own."""
    lines = [line for _, asked in said for line in asked["content"].split("\n")[1:-1]]
    texts = [line.partition(": ")[2] for line in lines]
    assert all(isinstance(json.loads(text), dict) for text in texts)
    return texts


def test_a_night_of_odd_users_items_and_profiles_has_each_row_once_with_its_score(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "embed_texts", lambda texts, *_, **__: judge_kit.encode(texts))
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path / "home"))
    judge, rows = packaged(tmp_path / "judge"), lists(40)
    odd = [item.item_id for item in shop.items[:ODD]]
    for n, row in enumerate(rows):
        user = shop.users[n] if n < len(shop.users) else row["user_id"]
        profile = shop.profiles[n % len(shop.profiles)]
        new = [odd[(n + place) % ODD] for place in range(3)]
        row |= {"user_id": user, "profile": profile, "listed": [*row["listed"], *new]}
        row |= {"item_ids": [*row["item_ids"], new[0]], "ratings": [*row["ratings"], None]}
        row |= {"versions": [*row["versions"], *["4"] * 3], "roles": [*row["roles"], *["champion"] * 3]}
        row["ranks"] = [*row["ranks"], 7, 8, 9]
    spec = night_spec(tmp_path / "night", judge, rows, coverage=0.9)
    path = Path(spec.tables["items"].files[0])
    plain = pq.read_table(path)
    told = [
        {"item_id": item.item_id, "title": item.title, "brand": item.brand, "category": "Misc", "price": None}
        | {"description": shop.profiles[n % 2], "features": None}
        for n, item in enumerate(shop.items[:ODD])
    ]
    pq.write_table(pa.concat_tables([plain, pa.Table.from_pylist(told, schema=plain.schema)]), path)
    metrics = score.main(spec).metrics
    found = table(spec, "judge_scores")
    submitted = [
        (row["user_id"], item, version)
        for row in rows
        for item, version in zip(row["listed"], row["versions"], strict=True)
    ]
    assert sorted((row["user_id"], row["item_id"], row["model_version"]) for row in found) == sorted(submitted)
    assert metrics["submitted"] == len(submitted) and set(odd) <= {row["item_id"] for row in found}
    assert not [row["why"] for row in table(spec, "judge_checks") if not row["passed"]]
    assert {row["failure"] for row in found} == {None} and all(np.isfinite(row["score"]) for row in found)
    for row in found:
        assert not row["reason"] or not [text for text in shop.profiles[1:] if len(text) > 3 and text in row["reason"]]
