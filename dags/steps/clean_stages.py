"""Removes the folders below `<home>/stages` that nothing needs any more: training runs, days of jobs, unpacked models.

What stays: whatever was opened within a day, and so may be in use; of each system the newest runs, and the newest days
of each job, as many as `stages.keep` of the profile says; what made champion and challenger of each model, and these
unpacked; and a run that was never finished, for `lake.keep_days` days, so that it can be taken up again. Lake and
MLflow keep what is theirs: what is removed here can be trained, or unpacked, again. Beside them, of the vectors of
texts that stages keep, the files that none has used for as many days.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex

from common.pipelines import Pipeline, read_pipeline, systems
from dags.steps._folders import JOBS, MODELS, PINS, Run, hold, opened, read_run, remove_markers
from dags.steps._runs import close_run
from infra import telemetry
from infra.console import print_table
from infra.errors import exit_with_reason
from infra.lake import Lake
from infra.profile import Profile, load_profile
from infra.systems import stages_of

# Longer than any stage may run: whoever works in a folder has opened it since then.
IN_USE = timedelta(hours=24)
# Where stages keep the vectors of texts (`training.core.embeddings`), below the profile's home.
TEXT_VECTORS = "text_vectors"
_WHOLE = ".arrow"  # of a file there that is whole
_REMOVED = "removed-"


@dataclass(frozen=True)
class Folder:
    """A folder, or a file, when it was last opened (UTC), its size in bytes, why it stays (empty: it does not)."""

    path: Path
    opened: datetime
    bytes: int
    why: str


def main() -> int:
    """Clean every system; with `--dry-run` only say what would go."""
    parser = argparse.ArgumentParser(prog="python -m dags.steps.clean_stages", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="list the folders, remove none")
    dry_run = parser.parse_args().dry_run
    telemetry.apply()
    profile, now = load_profile(), datetime.now(UTC)
    for system in systems():
        found = clean(profile, read_pipeline(system), now, dry_run)
        goes = "would be removed" if dry_run else "removed"
        lines = [(f.path, f.opened, round(f.bytes / 1e6), f"stays: {f.why}" if f.why else goes) for f in found]
        print_table(("folder", "opened (UTC)", "MB", ""), lines, f"{system}: no stage has run.")
    unused = clean_vectors(profile, now, dry_run)
    size = sum(file.bytes for file in unused) / 1e6
    goes = "would be removed" if dry_run else "removed"
    sys.stdout.write(f"vectors of texts that nobody uses: {len(unused)} files {goes}, {size:.0f} MB\n")
    return 0


def clean_vectors(profile: Profile, now: datetime, dry_run: bool = False) -> list[Folder]:
    """Remove the files of vectors that no stage has used for `lake.keep_days` days, and what a killed write has left;
    returns them. Whoever asks for one that is gone encodes its texts again."""
    patience = timedelta(days=profile.lake.keep_days)
    found = []
    for path in sorted((profile.home / TEXT_VECTORS).glob("*/*")):
        with suppress(FileNotFoundError):  # a stage that is at work renames its files
            said = path.stat()
            used = datetime.fromtimestamp(said.st_mtime, UTC)
            if now - used > (patience if path.suffix == _WHOLE else IN_USE):
                found.append(Folder(path, used, said.st_size, ""))
                if not dry_run:
                    path.unlink()
    return found


def clean(profile: Profile, pipeline: Pipeline, now: datetime, dry_run: bool = False) -> list[Folder]:
    """Remove what one system no longer needs; returns all its folders, oldest first.

    They are chosen, and put out of everybody's way, while nobody can open one; a kill leaves whole folders behind.
    """
    root = stages_of(profile, pipeline.system).resolve()
    with hold(root, alone=True):
        found = choose(profile, pipeline, root, now)
        gone = [] if dry_run else [_put_away(profile, folder.path, root) for folder in found if not folder.why]
    for path in gone:
        shutil.rmtree(path)
    return found


def choose(profile: Profile, pipeline: Pipeline, root: Path, now: datetime) -> list[Folder]:
    """Every folder below `root` that is ours, and why it stays."""
    leftovers = set(root.glob(f"{_REMOVED}*"))
    runs = {path: read_run(path) for path in {pins.parent for pins in root.glob(f"*/{PINS}")} - leftovers}
    kinds: dict[str, Collection[Path]] = {"runs": runs}
    kinds |= {f"days of {job.name}": list(job.iterdir()) for job in root.glob(f"{JOBS}/*")}
    unpacked = [path for path in root.glob(f"{MODELS}/*/*") if path.is_dir()]
    everything = [*(path for paths in kinds.values() for path in paths), *unpacked, *leftovers]
    opened = {path: datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in everything}
    since = {path: now - moment for path, moment in opened.items()}
    patience = timedelta(days=profile.lake.keep_days)
    why = {path: "never finished" for path in _unfinished(profile, runs) if since[path] < patience}
    for kind, paths in kinds.items():
        newest = sorted(paths, key=lambda path: (since[path], path))[: profile.stages.keep]
        why |= dict.fromkeys(newest, f"among the newest {kind}")
    why |= _standing(profile, pipeline, root)
    why |= {path: "opened within a day" for path in everything if since[path] < IN_USE}
    in_order = sorted(everything, key=lambda path: (opened[path], path))
    return [Folder(path, opened[path], _bytes(path), why.get(path, "")) for path in in_order]


def _unfinished(profile: Profile, runs: Mapping[Path, Run]) -> Iterable[Path]:
    """A run that was registered has given its snapshots free."""
    lake = Lake(profile)
    tables = {table for run in runs.values() for table in run.pins}
    tags = {tag for table in tables for version in lake.history(table) for tag in version.tags}
    return [path for path, run in runs.items() if run.tag in tags]


def _standing(profile: Profile, pipeline: Pipeline, root: Path) -> dict[Path, str]:
    """What belongs to champion and challenger."""
    from registry.aliases import active_versions
    from registry.evaluation_artifacts import stage_folders
    from registry.store import connect

    why = {}
    for model in pipeline.models:
        for role, version in active_versions(profile, model).items():
            why[root / MODELS / model / f"v{version}"] = f"{role} of {model}"
            for stage in stage_folders(connect(profile), model, version):
                why[stage.parent] = f"made the {role} of {model}, version {version}"
    return why


def _put_away(profile: Profile, path: Path, root: Path) -> Path:
    """Its new name, which nobody opens. By a rename alone: on a full disk nothing can be made."""
    if (path / PINS).is_file():
        close_run(profile, read_run(path))
        remove_markers(path)
    return opened(path.rename(root / f"{_REMOVED}{token_hex(8)}"))


def _bytes(path: Path) -> int:
    total = 0
    for file in path.rglob("*"):
        with suppress(FileNotFoundError):  # a stage that runs replaces its files
            total += file.stat().st_size
    return total


if __name__ == "__main__":
    exit_with_reason(main)
