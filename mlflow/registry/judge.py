"""Rules "not worse by the judge": what the semantic judge says of the lists of two versions (`judge_scores`).

As with the market, a version has lists only once it is challenger, so these rules are held when somebody decides: on
the newest night on which one judge has scored the lists of version and champion, and its scores were not withheld;
before the first promotion, of what stood in for a champion. They are paired by user, over all rows that were submitted:
one that failed counts as the least that can be said. Scores of two judges are never held against each other; those of a
judge that is in use no more still count, as it said the same of both, and the check says so. What was not judged says
so, and stops nothing unless the gate file says `required`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.dataset as ds

from common.bootstrap import interval
from common.formulas import Floats
from infra.lake import Lake
from infra.profile import Profile
from registry.gate_file import Gate, JudgeRule
from registry.gate_report import Check
from registry.gates import held_to
from registry.promotions import Promotions
from registry.values import Bootstrap

TABLE, JUDGE = "judge_scores", "semantic_judge"
STAND_IN = "baseline"  # the role of what stands in for a champion
LEAST = -1.0
"""The lowest score that there is: what a failed row counts as."""
_COLUMNS = ["run_date", "user_id", "model_version", "judge_version", "role", "score"]


def by_judge(profile: Profile, gate: Gate, version: str, champion: str | None) -> tuple[Check, ...]:
    """What the judge says by now of a version beside the champion; nothing where no rule asks it."""
    if not gate.judge:
        return ()
    in_use = Promotions(profile).champion(JUDGE)
    return held(gate.judge, gate.bootstrap, _nights(profile), version, champion, in_use)


def held(
    rules: Sequence[JudgeRule],
    by: Bootstrap,
    nights: Iterator[pd.DataFrame],
    version: str,
    champion: str | None,
    in_use: str | None = None,
) -> tuple[Check, ...]:
    """The rules on `nights` of `judge_scores`, the newest first; they are read as far as needed. `in_use`: the version
    of the judge that is champion by now."""
    if champion == version:
        return tuple(_passed_over(rule, "it is the champion: there is no other to compare with") for rule in rules)
    why = f"no night has judged lists of version {version}"
    for night in _by_judges(nights):
        own = night[night["model_version"] == version]
        if own.empty:
            continue
        theirs = night[night["model_version"] == champion] if champion else night[night["role"] == STAND_IN]
        if theirs.empty:
            whose = f"champion {champion}" if champion else "what stands in for a champion"
            why = f"no night has judged lists of version {version} beside those of {whose}"
        elif own["score"].isna().all() and theirs["score"].isna().all():
            why = f"the scores of {own['run_date'].iloc[0]} are withheld, or there are none (judge_checks says why)"
        else:
            return tuple(_held(rule, by, own, theirs, champion, in_use) for rule in rules)
    return tuple(_not_judged(rule, why) for rule in rules)


class _Mean:
    """Of sums of scores and of rows."""

    def of(self, sums: Floats) -> Floats:
        return np.asarray(sums[..., 0] / sums[..., 1])


def _by_judges(nights: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """What each judge says of a night, the newest judge first."""
    for night in nights:
        for judge in sorted(night["judge_version"].unique(), key=lambda one: (len(one), one), reverse=True):
            yield night[night["judge_version"] == judge]


def _held(
    rule: JudgeRule, by: Bootstrap, own: pd.DataFrame, theirs: pd.DataFrame, champion: str | None, in_use: str | None
) -> Check:
    sides = [_by_user(rows) for rows in (own, theirs)]
    users = sorted(sides[0].index.intersection(sides[1].index))
    judge = own["judge_version"].iloc[0]
    since = f" (in use by now: {in_use})" if in_use not in (None, judge) else ""
    where = f"{len(users)} users, the lists of {own['run_date'].iloc[0]}, judge version {judge}{since}"
    if not users:
        return _not_judged(rule, f"no user has lists of both: {where}")
    terms = [side.loc[users].to_numpy(dtype=np.float64) for side in sides]
    gain = interval(_Mean(), terms, users, seed=by.seed, resamples=by.resamples, level=by.confidence)
    stand_in = f"{theirs['model_version'].iloc[0]}, which stood in for a champion,"
    opponent = f"version {champion}" if champion else stand_in
    check = held_to(rule, gain, float(terms[1][:, 0].sum() / terms[1][:, 1].sum()), opponent)
    return replace(check, reason=f"{check.reason}; {where}", by_judge=True)


def _by_user(rows: pd.DataFrame) -> pd.DataFrame:
    """Sum of scores and number of rows of each user."""
    score = rows["score"].fillna(LEAST)
    return score.groupby(rows["user_id"]).agg(["sum", "size"])


def _not_judged(rule: JudgeRule, why: str) -> Check:
    if not rule.required:
        return _passed_over(rule, why)
    return replace(_passed_over(rule, f"not judged yet, and the gate file requires it: {why}"), passed=False)


def _passed_over(rule: JudgeRule, why: str) -> Check:
    return Check(rule.name, True, why, None, rule.margin, by_judge=True, played=False)


def _nights(profile: Profile) -> Iterator[pd.DataFrame]:
    """The nights of the lake, the newest first."""
    files = Lake(profile).files(TABLE)
    for day in sorted({file.partition for file in files}, reverse=True):
        rows = ds.dataset([file.path for file in files if file.partition == day]).to_table(columns=_COLUMNS).to_pandas()
        yield rows
