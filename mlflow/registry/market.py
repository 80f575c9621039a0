"""Rules "not worse in the market": the lists of two versions, played to the same simulated people (`market_replay`).

A version has lists only once it is challenger, after the gate of its evaluation. So these rules are held when somebody
decides, on the newest night that played it against the champion; what no night has played stops nothing, and says so.
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
Rows = Sequence[Mapping[str, Any]]


def in_market(profile: Profile, gate: Gate, version: str, champion: str | None) -> tuple[Check, ...]:
    """What the market says by now of a version beside the champion, rule by rule; nothing where no rule asks it."""
    if not gate.market:
        return ()
    other = champion if champion != version else None
    nights = _nights(profile, (version, other)) if other else []
    return held(gate.market, nights, version, other)


def held(rules: Sequence[MarketRule], rows: Rows, version: str, champion: str | None) -> tuple[Check, ...]:
    """The rules on `rows` of `market_replay`, of any nights."""
    if champion is None:
        return tuple(_not_played(rule, "there is no other champion to be played against") for rule in rules)
    return tuple(_held(rule, rows, version, champion) for rule in rules)


def _held(rule: MarketRule, rows: Rows, version: str, champion: str) -> Check:
    measured = [row for row in rows if row["metric"] == rule.metric]
    own = {row["run_date"]: row for row in measured if (row["model_version"], row["against"]) == (version, champion)}
    theirs = {row["run_date"]: row["value"] for row in measured if row["model_version"] == champion}
    if not (nights := own.keys() & theirs.keys()):
        return _not_played(rule, f"no night has lists of version {version} beside those of champion {champion}")
    night = max(nights)
    ours = own[night]
    check = held_to(rule, Interval(ours["difference"], ours["lo"], ours["hi"]), theirs[night], f"version {champion}")
    where = f"simulated: {ours['people']} people, {ours['days']} days, the lists of {night}"
    return replace(check, reason=f"{check.reason}; {where}", in_market=True)


def _not_played(rule: MarketRule, why: str) -> Check:
    return Check(rule.name, True, f"simulated: {why}", None, rule.margin, in_market=True, played=False)


def _nights(profile: Profile, versions: Sequence[str | None]) -> Rows:
    """What the lake holds of these versions."""
    paths = [file.path for file in Lake(profile).files(TABLE)]
    if not paths:
        return []
    rows: Rows = ds.dataset(paths).to_table(filter=pc.field("model_version").isin(list(versions))).to_pylist()
    return rows
