"""The registered versions that a stage reads: which stand, in which role, and where their files are unpacked.

Where a model has no champion, what its newest evaluation has left as its best baseline stands in for it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable

from common.models import ModelVersion
from common.pipelines import owner, read_pipeline, systems
from dags.steps._folders import MODELS, hold, opened, read_run
from infra.profile import Profile
from infra.systems import oldest_first, stages_of

BASELINE = "baseline"
"""The role of what stands in for a champion, and the folder that an evaluation leaves: its `baseline.json` has the
`name`."""


def active(profile: Profile, models: Iterable[str]) -> dict[str, tuple[ModelVersion, ...]]:
    """Champion and challenger of each model, unpacked, and a stand-in for a champion that there is not.

    Raises:
        DataError: nobody makes such a model, or what is registered is gone.
    """
    return {model: _active(profile, model) for model in models}


def _active(profile: Profile, model: str) -> tuple[ModelVersion, ...]:
    from registry.aliases import CHAMPION, active_versions
    from registry.packaging import unpack

    system = owner(model, oldest_first(profile, systems()))
    root = stages_of(profile, system)
    found: list[ModelVersion] = []
    with hold(root):
        for role, version in active_versions(profile, model).items():
            found.append(
                ModelVersion(version, role, str(opened(unpack(profile, model, version, root / MODELS / model))))
            )
            _say(f"{role}: {model} version {version}")
    if CHAMPION not in {one.role for one in found}:
        stand_in = _stand_in(profile, system, model)
        by = f"{stand_in[0].version} stands in for it" if stand_in else "no baseline was measured either"
        _say(f"{model} has no champion yet, as nobody has promoted a version: {by}")
        found += stand_in
    return tuple(found)


def _stand_in(profile: Profile, system: str, model: str) -> tuple[ModelVersion, ...]:
    """The best baseline of the newest evaluation; none before the first."""
    root = stages_of(profile, system)
    with hold(root):
        left = list(root.glob(f"*/{read_pipeline(system).models[model]}/{BASELINE}/{BASELINE}.json"))
        if not left:
            return ()
        newest = max(left, key=lambda file: (read_run(file.parents[2]).last, file.stat().st_mtime))
        opened(newest.parents[2])
        return (ModelVersion(json.loads(newest.read_text())["name"], BASELINE, str(newest.parent)),)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
