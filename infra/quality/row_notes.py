"""What single rows broke, on the Data Docs page of a run: Great Expectations sees aggregates, and no rows."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.partitions import QUARANTINE_SUFFIX
from infra.profile import Profile
from infra.quality.data_docs import site_folder
from infra.quality.failing_keys import failing_keys_path

_FIRST_EXPECTATION = '<div id="section-2"'
_PARTITIONS_TOLD = 100


def tell_of_rows(profile: Profile, table: str, rows: Sequence[Mapping[str, Any]], since: float) -> None:
    """On the table's pages of at or after `since`: the row rules that were broken, where, and the refused rows' place.

    `rows` are the run's aggregates, one per partition.
    """
    for page in (site_folder(profile) / "validations" / table).rglob("*.html"):
        if page.stat().st_mtime >= since:
            note = _broken_rules(profile, table, rows, page.parent)
            page.write_text(page.read_text().replace(_FIRST_EXPECTATION, note + _FIRST_EXPECTATION, 1))


def _broken_rules(profile: Profile, table: str, rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    broken = []
    for row in rows:
        counts = {key.removeprefix("rule_"): count for key, count in row.items() if key.startswith("rule_") and count}
        if counts:
            broken.append((row, ", ".join(f"{html.escape(rule)} ({count})" for rule, count in counts.items())))
    newest = sorted(broken, key=lambda one: one[0]["partition"], reverse=True)
    lines = "".join(_broken_line(profile, table, row, rules, folder) for row, rules in newest[:_PARTITIONS_TOLD])
    older = len(newest) - _PARTITIONS_TOLD
    text = (
        "<p>Rules of single rows that were broken, and by how many rows. Refused rows are, with their keys, in the\n"
        f"table <code>{table}{QUARANTINE_SUFFIX}</code> and in the file of their partition, which each run over it\n"
        "writes anew.</p><table><thead><tr><th>Partition</th><th>Broken rules</th><th>Refused rows</th></tr></thead>"
        f"<tbody>{lines}</tbody></table>{f'<p>{older} older partitions are not shown.</p>' if older > 0 else ''}"
    )
    body = text if lines else "<p>No row broke a rule.</p>"
    head = '<div class="alert"><h5 class="m-0">Rows</h5></div>'
    tail = "<p>What follows checks partitions: its rows are partitions.</p>"
    return f'<div class="ge-section">{head}{body}{tail}</div>\n'


def _broken_line(profile: Profile, table: str, row: Mapping[str, Any], rules: str, folder: Path) -> str:
    file = Path(os.path.relpath(failing_keys_path(profile, table, row["partition"]), folder)).as_posix()
    refused = row["rows_quarantined"]
    told = f'<a href="{html.escape(file, quote=True)}">{refused} (CSV)</a>' if refused else "0"
    return f"<tr><td>{row['partition']}</td><td>{rules}</td><td>{told}</td></tr>"
