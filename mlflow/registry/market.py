"""Rules "not worse in the market": the lists of two versions, played to the same simulated people (`market_replay`).

A version has lists only once it is challenger, after the gate of its evaluation. So these rules are held when somebody
decides, on the newest night that played it against the champion; before the first promotion, against the baseline that
stood in for one. What no night has played says so, and stops nothing unless the gate file says `required`.
The market flatters what resembles a history: it is a guard against lists that nobody would read, and no proof of good
ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds

from common.bootstrap import Interval
from infra.lake import Lake
from infra.profile import Profile
from registry.gate_file import Gate, MarketRule
from registry.gate_report import Check
from registry.gates import held_to

TABLE = "market_replay"
STAND_IN = "baseline"  # the role of what stands in for a champion
Rows = Sequence[Mapping[str, Any]]


def in_market(profile: Profile, gate: Gate, version: str, champion: str | None) -> tuple[Check, ...]:
    """What the market says by now of a version beside the champion, rule by rule; nothing where no rule asks it."""
    if not gate.market:
        return ()
    return held(gate.market, _nights(profile, version), version, champion)


def held(rules: Sequence[MarketRule], rows: Rows, version: str, champion: str | None) -> tuple[Check, ...]:
    """The rules on `rows` of `market_replay`, of any nights."""
    if champion == version:
        return tuple(_passed_over(rule, "it is the champion: there is no other to be played against") for rule in rules)
    return tuple(_held(rule, rows, version, champion) for rule in rules)


def _held(rule: MarketRule, rows: Rows, version: str, champion: str | None) -> Check:
    measured = [row for row in rows if row["metric"] == rule.metric]
    # What the others of a night are held against: its champion, or the baseline that stood in for one.
    first = {row["run_date"]: row for row in measured if _is_other(row, champion)}
    own = {
        row["run_date"]: row
        for row in measured
        if row["model_version"] == version and row["run_date"] in first
        if row["against"] == first[row["run_date"]]["model_version"]
    }
    if not own and not champion and any(row["model_version"] == version for row in measured):
        return _passed_over(rule, "nothing stood in for a champion, so it was played alone")
    if not own:
        whose = f"champion {champion}" if champion else "what stands in for a champion"
        return _not_played(rule, f"no night has lists of version {version} beside those of {whose}")
    night = max(own)
    ours, theirs = own[night], first[night]
    opponent = f"version {champion}" if champion else f"{theirs['model_version']}, which stood in for a champion,"
    check = held_to(rule, Interval(ours["difference"], ours["lo"], ours["hi"]), theirs["value"], opponent)
    where = f"simulated: {ours['people']} people, {ours['days']} days, the lists of {night}"
    return replace(check, reason=f"{check.reason}; {where}", in_market=True)


def _is_other(row: Mapping[str, Any], champion: str | None) -> bool:
    return bool(row["model_version"] == champion if champion else row["role"] == STAND_IN)


def _not_played(rule: MarketRule, why: str) -> Check:
    if not rule.required:
        return _passed_over(rule, why)
    return replace(_passed_over(rule, f"not played yet, and the gate file requires it: {why}"), passed=False)


def _passed_over(rule: MarketRule, why: str) -> Check:
    return Check(rule.name, True, f"simulated: {why}", None, rule.margin, in_market=True, played=False)


def _nights(profile: Profile, version: str) -> Rows:
    """What the lake holds of the nights that played a version."""
    paths = [file.path for file in Lake(profile).files(TABLE)]
    if not paths:
        return []
    played = ds.dataset(paths)
    nights = played.to_table(columns=["run_date"], filter=pc.field("model_version") == version)["run_date"].unique()
    rows: Rows = played.to_table(filter=pc.field("run_date").isin(nights)).to_pylist()
    return rows
