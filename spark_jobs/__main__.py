"""Run jobs: `python -m spark_jobs sessions --partition 2018-01-05 [--from 2016-10-01]`.

Under `spark-submit`, from the checkout (the driver's memory and Java options are its own there, not the profile's):
`PYSPARK_PYTHON=.venv/bin/python .venv/bin/spark-submit --driver-memory 3g
--driver-java-options -XX:-DontCompileHugeMethods spark_jobs/__main__.py sessions --partition 2018-01-05`.

Landed tables (items, events, and the others of `landing/tables.py`) follow the files of the landing folder; for them a
range is optional. `landed` stands for all of them, `built` for all that is built of them, each in its order.
`signals` follows the landing folder as a stream: what has landed since its last run.
`python -m spark_jobs leakage --table next_item_samples` audits a whole sample table; 65 where it leaks.
`market_replay` plays the night's lists in the simulated market, `market_validity` says how like real logs that is;
`python -m spark_jobs market --help`: more of that.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from datetime import date
from typing import Any

from infra.arguments import add_range, given_range
from infra.contracts import UNDATED
from infra.errors import DataError, exit_with_reason
from infra.ledger import Ledger
from infra.profile import Profile, load_profile
from infra.results import hand_on
from spark_jobs import signals
from spark_jobs.engine.job import Job, JobReport, run
from spark_jobs.engine.spark import explained
from spark_jobs.ingest import LANDED, ingest
from spark_jobs.landing.files import of_no_table
from spark_jobs.landing.tables import TABLES
from spark_jobs.leakage import audit_table
from spark_jobs.market.__main__ import main as market

BUILT = (
    *("sessions", "histories", "user_stats", "item_stats", "query_stats", "user_profiles", "next_item_samples"),
    *("judge_pairs", "judge_examples", "query_samples", "hint_samples"),
)
_GROUPS = {"landed": LANDED, "built": BUILT}
_TOLD = 20  # refusals that a later task tells again


def main() -> int:
    """Run the named jobs in order, in one Spark session; 65 where a partition was stopped."""
    if sys.argv[1:2] == ["market"]:
        return market(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m spark_jobs", description=__doc__)
    names = (*_GROUPS, *LANDED, *BUILT, signals.TABLE, "market_replay", "market_validity", "leakage")
    parser.add_argument("jobs", nargs="+", choices=names, metavar="job", help=", ".join(names))
    add_range(parser, required=False)
    parser.add_argument(
        "--go-on",
        action="store_true",
        help="landed tables: hand what was refused on to a later task and exit 0, if a day of the range has landed",
    )
    parser.add_argument("--table", default="next_item_samples", help="the sample table that `leakage` audits")
    args = parser.parse_args()
    if args.go_on and (args.partition is None or not {"landed", *LANDED}.issuperset(args.jobs)):
        parser.error("--go-on is for landed tables, with --partition")
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("plumbline").setLevel(logging.INFO)
    profile = load_profile()
    first = args.first or args.partition or date.min
    reports = []
    with explained(profile):
        for asked in args.jobs:
            for name in _GROUPS.get(asked, (asked,)):
                report = _run(name, args, profile)
                reports.append(report)
                print("\n".join(report.messages if name == "leakage" else report.lines()), flush=True)
    if not {"landed", *LANDED}.isdisjoint(args.jobs) and (beside := of_no_table(profile.landing)):
        print(beside, flush=True)
    refused = _shortened([line for report in reports for line in report.refusals])
    goes_on = args.go_on and _something_landed([report.table for report in reports], args, profile)
    result: dict[str, Any] = {"refused": refused} if refused and goes_on else {}
    landed = [report for report in reports if report.table in LANDED]
    built = {write.partition for report in landed for write in report.published} - {UNDATED}
    if min(built, default=first) < first:
        # Late rows rebuild days before the range; whoever follows is to see them too.
        result["from"] = min(built).isoformat()
    if result:
        hand_on(result)
    return 0 if goes_on else max(report.exit_code for report in reports)


def _shortened(lines: list[str]) -> list[str]:
    told, more = [" ".join(line.split()) for line in lines[:_TOLD]], len(lines) - _TOLD
    return [*told, f"... and {more} more, in the log of this command"] if more > 0 else told


def _something_landed(tables: Sequence[str], args: argparse.Namespace, profile: Profile) -> bool:
    """Whether each daily table that must land has a day of the range: what was refused then stops nothing."""
    (first, last), ledger = given_range(args), Ledger(profile)
    daily = [name for name in tables if TABLES[name].has_quiet_days and TABLES[name].needed_always]
    return all(any(first <= day <= last for day in ledger.committed(name)) for name in daily)


def _run(name: str, args: argparse.Namespace, profile: Profile) -> JobReport:
    if name == "leakage":
        return JobReport(args.table, messages=(f"{args.table}: {audit_table(args.table, profile)} samples, no leak",))
    if name == signals.TABLE:
        return signals.update(profile)
    if args.partition is not None:
        first, last = given_range(args)
        if name in LANDED:
            return ingest(name, profile, first, last)
        job: Job = importlib.import_module(f"spark_jobs.{name}").JOB
        return run(job, first, last, profile)
    if name not in LANDED:
        raise DataError(f"Job {name!r} needs to know which partition.", do="Add --partition YYYY-MM-DD.")
    return ingest(name, profile, args.first)


if __name__ == "__main__":
    exit_with_reason(main)
