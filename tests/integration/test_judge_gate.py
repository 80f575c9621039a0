"""The rule of the judge, held on a real lake, ledger and MLflow: by a flag, by hand, and when the judge has changed."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from dags.steps import decide
from infra.contracts import arrow_schema, load_contract
from infra.profile import Profile
from registry import decisions
from registry.gate_report import Check, Verdict
from registry.judge import JUDGE
from registry.promotions import Decision, GateNotPassed, Promotions
from tests.lake_kit import put
from tests.registry_kit import GATE, MODEL, empty_store, profile, publish_day, train

__all__ = ["empty_store", "profile"]
MONDAY = date(2018, 1, 8)
TUESDAY = MONDAY + timedelta(1)


class Shop:
    """A model whose gate asks the judge, and nights that a judge has scored."""

    def __init__(self, profile: Profile, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.profile, self.folder, self.patch = profile, folder, patch
        self.snapshot = publish_day(profile, MONDAY, rows=3)

    def ask_judge(self, **rule: Any) -> None:
        gate = {**GATE, "judge": [{"margin": -0.05, **rule}]}
        (self.folder / "gates" / f"{MODEL}.yaml").write_text(yaml.safe_dump(gate))

    def register(self, hits: int) -> str:
        version = train(self.profile, self.folder / f"with {hits}", snapshot=self.snapshot, hits=hits)
        decisions.hold_gate(self.profile, MODEL, version)
        return version

    def by_flag(self, version: str) -> Decision:
        """What the DAG `promote_<model>` decides where nobody is asked."""
        answer = ["--answer", "Approve", "--form", "{}", "--who", "flag"]
        self.patch.setattr(sys, "argv", ["decide", "--model", MODEL, "--version", version, *answer])
        assert decide.main() == 0
        return Promotions(self.profile).history(MODEL)[-1]

    def said(self, version: str) -> Check:
        """What the gate finds of the judge's rule by now."""
        return next(check for check in decisions.hold_gate(self.profile, MODEL, version).checks if check.by_judge)

    def scored(self, day: date, judge: str, **scores: float | None) -> None:
        """The night of lists of two items for thirty users, of each version with the one score; None: withheld."""
        lines = [
            {"run_date": day, "user_id": f"u{n}", "item_id": f"i{place}", "model_version": version[1:]}
            | {"judge_version": judge, "role": "champion", "rank": place + 1, "history_length": 1, "score": score}
            | {"failure": "withheld" if score is None else None}
            for n in range(30)
            for version, score in scores.items()
            for place in range(2)
        ]
        schema = pa.schema([field.with_nullable(True) for field in arrow_schema(load_contract("judge_scores"))])
        put(self.profile, "judge_scores", pa.Table.from_pylist(lines, schema=schema))


@pytest.fixture
def shop(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(profile, tmp_path, monkeypatch)


def verdict(made: Decision) -> Verdict:
    """What the decision's own report says of the judge's rule."""
    assert made.report is not None
    return next(check.verdict for check in made.report.checks if check.by_judge)


def test_a_flag_that_decides_before_the_night_promotes_and_says_that_nothing_was_judged(shop: Shop) -> None:
    shop.ask_judge()
    made = shop.by_flag(shop.register(hits=20))
    assert (made.decision, verdict(made)) == ("promote", "not judged yet")
    assert made.report is not None and "no night has judged lists of version 1" in made.report.lists_sentence
    # The night comes after: whoever rules on the next version reads it, and the decision that stands is not touched.
    second = shop.register(hits=40)
    shop.scored(MONDAY, "3", v1=0.4, v2=0.1)
    assert shop.said("1").reason == "it is the champion: there is no other to compare with"
    made = shop.by_flag(second)
    assert (made.decision, made.to_version, verdict(made)) == ("reject", "2", "failed")
    assert "approved, but refused" in made.reason and "judge's score vs champion" in made.reason
    assert Promotions(shop.profile).champion(MODEL) == "1"


def test_under_a_flag_a_gate_that_requires_the_judge_refuses_what_no_night_has_scored(shop: Shop) -> None:
    shop.ask_judge(required=True)
    made = shop.by_flag(shop.register(hits=20))
    assert (made.decision, verdict(made)) == ("reject", "failed")
    assert "not judged yet, and the gate file requires it: no night has judged lists of version 1" in str(made.report)
    assert Promotions(shop.profile).champion(MODEL) is None


@pytest.mark.parametrize("required", [False, True])
def test_a_night_whose_scores_are_withheld_decides_nothing(shop: Shop, required: bool) -> None:
    shop.ask_judge()
    decisions.promote(shop.profile, MODEL, shop.register(hits=20), who="ada")
    second = shop.register(hits=40)
    shop.ask_judge(required=required)
    shop.scored(MONDAY, "3", v1=None, v2=None)
    found = shop.said(second)
    assert found.verdict == ("failed" if required else "not judged yet") and found.value is None
    assert "the scores of 2018-01-08 are withheld" in found.reason and "judge_checks" in found.reason
    if required:
        with pytest.raises(GateNotPassed, match="not judged yet, and the gate file requires it"):
            decisions.promote(shop.profile, MODEL, second, who="ada")
        # It is still challenger, so the next night has its lists, and then it may be promoted.
        shop.scored(TUESDAY, "3", v1=0.1, v2=0.1)
    made = decisions.promote(shop.profile, MODEL, second, who="ada")
    assert verdict(made) == ("passed" if required else "not judged yet")


def test_a_judge_that_has_changed_since_is_named_and_two_judges_are_never_mixed(shop: Shop) -> None:
    shop.ask_judge()
    decisions.promote(shop.profile, MODEL, shop.register(hits=20), who="ada")
    second = shop.register(hits=40)
    # Each version was judged by another judge: nothing is compared, whatever the figures are.
    shop.scored(MONDAY, "3", v1=0.4)
    shop.scored(TUESDAY, "4", v2=-0.9)
    found = shop.said(second)
    assert found.verdict == "not judged yet" and "beside those of champion 1" in found.reason
    shop.scored(TUESDAY, "4", v1=0.4, v2=0.1)
    assert "judge version 4" in shop.said(second).reason and "in use by now" not in shop.said(second).reason
    # Judge 5 comes into use; no night is of it yet.
    ledger, report = Promotions(shop.profile), decisions.hold_gate(shop.profile, MODEL, second)
    ledger.promote(JUDGE, "5", champion=None, who="ada", report=report, override=True, reason="a test")
    found = shop.said(second)
    assert found.verdict == "failed" and found.reason.endswith("judge version 4 (in use by now: 5)")
