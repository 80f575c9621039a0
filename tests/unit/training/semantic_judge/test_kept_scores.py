"""What was said before is found by all that it was asked by, and one night's worth of it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training.judge_kit import cases_of, evidence_of, shop_items
from training.core.errors import DataError
from training.semantic_judge import kept_scores
from training.semantic_judge.examples import Candidate, Item, UserState
from training.semantic_judge.kept_scores import KeptScores, Keys, hash_of

pytestmark = pytest.mark.unit
JUDGE = "ab" * 32
USER = UserState("u", date(2026, 1, 3), ("i0", "i4"), (5.0, None), "likes pens", None)
ASKED = Candidate("i8", 4.0, 3.0)


def key(user: UserState = USER, item: Candidate = ASKED, items: list[Item] | None = None, judge: str = JUDGE) -> bytes:
    evidence = evidence_of(items or shop_items())
    (found,) = Keys(judge, evidence.catalogue.items).of(cases_of(evidence, [(user, item)]))
    return found


def changed(number: int, **values: object) -> list[Item]:
    items = shop_items()
    items[number] = replace(items[number], **values)  # type: ignore[arg-type]
    return items


@pytest.mark.parametrize(
    "other",
    [
        lambda: key(replace(USER, history=("i4", "i0"))),
        lambda: key(replace(USER, ratings=(5.0, 4.0))),
        lambda: key(replace(USER, profile="likes desks")),
        lambda: key(replace(USER, context="a pen")),
        lambda: key(item=Candidate("i9", 4.0, 3.0)),
        lambda: key(item=Candidate("i8", 4.5, 3.0)),
        lambda: key(item=Candidate("i8", None, 3.0)),
        lambda: key(item=Candidate("i8", 4.0, 4.0)),
        lambda: key(items=changed(8, title="another")),
        lambda: key(items=changed(8, price=99.0)),
        lambda: key(items=changed(4, brand="another")),
        lambda: key(judge="cd" * 32),
    ],
)
def test_whatever_a_judge_may_see_is_part_of_the_key(other: Callable[[], bytes]) -> None:
    assert other() != key()


def test_who_and_when_and_other_items_are_not() -> None:
    assert key(replace(USER, user_id="v", as_of=date(2026, 2, 3))) == key() == key(items=changed(9, title="another"))


def test_another_wording_of_what_is_asked_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = set[bytes]()
    for words in ("Judge an item.", "Judge an item well."):
        (tmp_path / "prompts.py").write_text(words)
        (tmp_path / "prompts.pyc").write_text(f"what Python made of it: {words}")
        monkeypatch.setattr(kept_scores, "_ROOM", tmp_path)
        found |= {key(), key()}
        (tmp_path / "prompts.pyc").write_text("what another Python made of it")
        found.add(key())
    assert len(found) == 2


def test_one_night_is_kept_and_an_older_one_made_later_does_not_push_it_out(tmp_path: Path) -> None:
    store = KeptScores(tmp_path / "kept.sqlite", 2)
    keys, values = [b"a", b"b"], np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    store.replace(10, [(keys, values)])
    there, found = store.find([b"b", b"z", b"b"])
    assert there.tolist() == [True, False, True] and found[0].tolist() == [3.0, 4.0] and np.isnan(found[1]).all()
    store.replace(9, [([b"c"], values[:1])])
    assert store.find([b"a", b"b", b"c"])[0].all()
    store.replace(11, [([b"a"], values[:1])])
    assert store.find([b"a", b"b", b"c"])[0].tolist() == [True, False, False]


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "kept.sqlite").write_bytes(b"no database at all, and long enough to be read as a header" * 9)
    with pytest.raises(DataError, match="cannot be read"):
        KeptScores(tmp_path / "kept.sqlite", 2).find([b"a"])


def test_the_hash_of_a_folder_is_of_names_and_bytes(tmp_path: Path) -> None:
    for name, words in (("a", {"x": "1"}), ("b", {"x": "1"}), ("c", {"x": "2"}), ("d", {"y": "1"})):
        (tmp_path / name).mkdir()
        for file, text in words.items():
            (tmp_path / name / file).write_text(text)
    a, b, c, d = (hash_of(tmp_path / name) for name in "abcd")
    assert a == b and len({a, c, d}) == 3
