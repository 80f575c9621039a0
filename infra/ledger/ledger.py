"""The run ledger: what was committed, by which attempt, out of what; what is missing; whether the rows add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, func, insert, select

from common.sentences import some_of
from infra.database import open_database, transaction
from infra.errors import EXIT_SUPERSEDED, PlumblineError
from infra.ledger.landings import LandingFile, Landings, delivered, named_inputs, short_hash
from infra.ledger.schema import METADATA, attempt_partitions, attempts, commits, rule_results
from infra.ledger.stops import Stop, Stops
from infra.partitions import Attempt, Commit, PartitionWrite, RuleResult, stands_in
from infra.profile import Profile, code_commit

_FIELDS = [column.name for column in commits.c if column.name != "id"]


class StaleAttempt(PlumblineError):
    """A newer attempt of the same task is open; this one must not publish, and a retry of it would not help."""

    exit_code = EXIT_SUPERSEDED


@dataclass(frozen=True)
class Imbalance:
    """A partition whose rows in are not its rows out plus its rows in quarantine, or a landing file whose records are
    not the rows that its days got; `of` names it, `key` is the run key or the file's hash.
    """

    asset: str
    of: str
    key: str
    rows_in: int
    rows_out: int
    rows_quarantined: int

    @property
    def lost(self) -> int:
        """Rows that went in and did not come out (negative: rows from nowhere)."""
        return self.rows_in - self.rows_out - self.rows_quarantined


@dataclass(frozen=True)
class Unsettled:
    """A day that is not in its table as it was delivered.

    `live`: an older version of it is. `records` were delivered for it; `files` are those that are not in the table.
    `why` it was stopped or passed over is empty where no run has come to it yet.
    """

    asset: str
    day: date
    live: bool
    records: int
    files: tuple[str, ...]
    why: str

    @property
    def said(self) -> str:
        """What is the matter, and with which files."""
        named = some_of(self.files)
        if self.why:
            return self.why + (f" ({named})" if named else "")
        if not self.live:
            return f"no run has come to {named}" if named else "no run has come to it"
        return f"built before {named}" if named else "built before a file of it was replaced"


class Ledger:
    """The ledger in the profile's database (SQLite or Postgres); its tables are made on first use."""

    def __init__(self, profile: Profile) -> None:
        self._engine = open_database(profile.database_uri, METADATA)
        self.landings = Landings(self._engine)
        self.stops = Stops(self._engine)
        self._code_commit = code_commit(profile)

    def open_attempt(self, asset: str, partitions: Sequence[date]) -> Attempt:
        """Start an attempt; from now on every earlier attempt on one of these partitions is stale."""
        started = datetime.now(UTC)
        days = tuple(sorted(set(partitions)))
        with transaction(self._engine) as connection:
            opened = insert(attempts).values(asset=asset, started=started).returning(attempts.c.token)
            token = int(connection.scalars(opened).one())
            if days:
                connection.execute(insert(attempt_partitions), [{"token": token, "partition": day} for day in days])
        return Attempt(asset, token, days, started)

    def check(self, attempt: Attempt, *partitions: date) -> None:
        """Refuse an attempt that has been overtaken on one of `partitions`.

        Raises:
            StaleAttempt: a newer attempt holds one of them.
        """
        newer = (
            select(attempt_partitions.c.partition, func.max(attempt_partitions.c.token))
            .join(attempts, attempts.c.token == attempt_partitions.c.token)
            .where(attempts.c.asset == attempt.asset, attempts.c.token > attempt.token)
            .group_by(attempt_partitions.c.partition)
        )
        with transaction(self._engine) as connection:
            overtaken = {row[0]: row[1] for row in connection.execute(newer)}
        for day in sorted(set(partitions) & set(overtaken)):
            raise StaleAttempt(
                f"Attempt {attempt.token} of {attempt.asset!r} was overtaken by attempt {overtaken[day]}.",
                where=f"partition {day}",
                why="The same task was started again after this one began.",
                do="Nothing: the newer attempt publishes, and this one has changed nothing.",
            )

    def record(self, attempt: Attempt, writes: Sequence[PartitionWrite], snapshot_id: int | None) -> None:
        """Add the rows of a publish, all or none."""
        with transaction(self._engine) as connection:
            self._add(connection, [_commit_of(attempt, write, snapshot_id, self._code_commit) for write in writes])

    def correct(self, restored: Sequence[Commit], withdrawn: Sequence[Commit], snapshot_id: int | None) -> None:
        """After a rollback, all or none: `restored` commits are live again, `withdrawn` ones are missing."""
        now = datetime.now(UTC)
        again = [replace(c, action="restore", snapshot_id=snapshot_id, committed=now) for c in restored]
        gone = [replace(c, action="withdraw", snapshot_id=snapshot_id, committed=now) for c in withdrawn]
        with transaction(self._engine) as connection:
            self._add(connection, [*again, *gone])

    def committed(self, asset: str) -> dict[date, Commit]:
        """The newest commit of each partition that holds one."""
        newest = select(func.max(commits.c.id)).where(commits.c.asset == asset).group_by(commits.c.partition)
        found = self._read(select(commits).where(commits.c.id.in_(newest), commits.c.action != "withdraw"))
        return {commit.partition: commit for commit in found}

    def missing(self, asset: str, first: date, last: date) -> list[date]:
        """Days of [first, last] with no commit, in order."""
        done = self.committed(asset)
        days = (first + timedelta(days=n) for n in range((last - first).days + 1))
        return [day for day in days if day not in done]

    def history(self, asset: str | None = None, partition: date | None = None) -> list[Commit]:
        """All rows, oldest first."""
        query = select(commits).order_by(commits.c.id)
        if asset is not None:
            query = query.where(commits.c.asset == asset)
        if partition is not None:
            query = query.where(commits.c.partition == partition)
        return self._read(query)

    def assets(self) -> list[str]:
        """Every asset that has a row."""
        with transaction(self._engine) as connection:
            return list(connection.scalars(select(commits.c.asset).distinct().order_by(commits.c.asset)))

    def unsettled(self, asset: str) -> list[Unsettled]:
        """The days of an asset that are not in its table as they were delivered, in order."""
        committed, stops = self.committed(asset), self.stops.of(asset)
        landings = self.landings.files(asset)
        # Of two names of one content, one that is there counts.
        files = {short_hash(file.sha256): file for file in sorted(landings, key=lambda file: file.there)}
        used = {day: named_inputs(commit.inputs) for day, commit in committed.items()}
        landed = _landed(landings, used)
        found = []
        for day in sorted({*landed, *stops}):
            contents, commit, stop = landed.get(day, set()), committed.get(day), stops.get(day)
            told = stop if stop and _holds(stop, commit) and named_inputs(stop.inputs).keys() == contents else None
            if told or contents != used.get(day, {}).keys():
                new = () if told and not told.judge else contents - used.get(day, {}).keys()
                names = tuple(sorted(files[each].name for each in new))
                records = sum(files[each].rows[day] for each in contents if each in files)
                found.append(Unsettled(asset, day, commit is not None, records, names, told.why if told else ""))
        return found

    def all_unsettled(self) -> list[Unsettled]:
        """The unsettled days of every asset."""
        assets = sorted({*self.landings.tables(), *self.stops.assets()})
        return [found for asset in assets for found in self.unsettled(asset)]

    def reconcile(self, assets: Sequence[str] | None = None) -> list[Imbalance]:
        """What does not add up; empty when every record of the landing files came out or is in quarantine.

        `assets`: all that have a row or a file where none are named. A landed partition is held against the records
        that were counted in its files, any other against its own input.
        """
        asked = sorted({*self.assets(), *self.landings.tables()}) if assets is None else assets
        return [found for asset in asked for found in self._imbalances(asset) if found.lost != 0]

    def _imbalances(self, asset: str) -> Iterator[Imbalance]:
        files = self.landings.files(asset)
        for file in files:
            yield Imbalance(asset, file.name, file.sha256, file.records, sum(file.rows.values()), 0)
        for day, commit in sorted(self.committed(asset).items()):
            counted = delivered(commit, files) if files else None
            rows_in = commit.rows_in if counted is None else counted
            yield Imbalance(asset, str(day), commit.run_key, rows_in, commit.rows_out, commit.rows_quarantined)

    def _add(self, connection: Connection, added: Sequence[Commit]) -> None:
        if not added:
            return
        rows = [{name: getattr(commit, name) for name in _FIELDS} | {"inputs": list(commit.inputs)} for commit in added]
        insertion = insert(commits).returning(commits.c.id, sort_by_parameter_order=True)
        numbers = connection.scalars(insertion, rows).all()
        rules = [
            {"commit_id": number, **vars(rule)}
            for number, commit in zip(numbers, added, strict=True)
            for rule in commit.rules
        ]
        if rules:
            connection.execute(insert(rule_results), rules)

    def _read(self, query: Select[Any]) -> list[Commit]:
        wanted = query.subquery()
        rules_query = select(rule_results).join(wanted, and_(wanted.c.id == rule_results.c.commit_id))
        known: dict[tuple[Any, ...], RuleResult] = {}  # most rules say the same of nearly all partitions
        rules: dict[int, list[RuleResult]] = {}
        with transaction(self._engine) as connection:
            for commit_id, *said in connection.execute(rules_query):
                key = tuple(said)
                rules.setdefault(commit_id, []).append(known.get(key) or known.setdefault(key, RuleResult(*key)))
            found = []
            for row in connection.execute(query).mappings():
                fields = {name: row[name] for name in _FIELDS} | {"inputs": tuple(row["inputs"])}
                found.append(Commit(**fields, rules=tuple(rules.get(row["id"], ()))))
        return found


def _landed(files: Sequence[LandingFile], used: Mapping[date, Mapping[str, str]]) -> dict[date, set[str]]:
    """The contents that each day is to be made of: those that are there, and of others what the day is made of now,
    unless other content lies under their name."""
    names, known = {file.name for file in files if file.there}, {short_hash(file.sha256) for file in files}
    landed = {
        day: {content for content, name in made_of.items() if content in known or name not in names}
        for day, made_of in used.items()
    }
    for file in files:
        for day in file.rows if file.there else ():
            landed.setdefault(day, set()).add(short_hash(file.sha256))
    return landed


def _holds(stop: Stop, commit: Commit | None) -> bool:
    """Whether a stop is news: no later commit has settled the day, but for good rows that only stand in."""
    return commit is None or commit.committed <= stop.recorded or stands_in(commit.run_key)


def _commit_of(attempt: Attempt, write: PartitionWrite, snapshot_id: int | None, code: str) -> Commit:
    return Commit(
        asset=attempt.asset,
        partition=write.partition,
        run_key=write.run_key,
        token=attempt.token,
        snapshot_id=snapshot_id,
        action="publish",
        rows_in=write.rows_in,
        rows_out=write.rows_out,
        rows_quarantined=write.rows_quarantined,
        inputs=write.inputs,
        config_hash=write.config_hash,
        code_commit=code,
        started=attempt.started,
        committed=datetime.now(UTC),
        rules=write.rules,
    )
