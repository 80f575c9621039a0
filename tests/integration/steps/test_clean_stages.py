"""The clean-up beside a real registry: what stands keeps its folders, and nothing shown is lost with the others."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from dags.steps._folders import MODELS, PINS
from dags.steps.clean_stages import clean
from registry.packaging import unpack
from tests.registry_kit import MODEL

GOOD, BETTER, BEST = 20, 30, 40


def test_champion_and_challenger_keep_the_folders_of_their_making(steps: Any) -> None:
    profile = steps.profile.model_copy(update={"stages": steps.profile.stages.model_copy(update={"keep": 0})})
    root = profile.home / "stages" / steps.pipeline.system
    for hits in (GOOD, BETTER, BEST):
        steps.train(hits)
        steps.register()
        if hits != BEST:
            steps.promote()
        unpack(profile, MODEL, str(steps.days), root / MODELS / MODEL)
    steps.export()
    told = steps.rows("ops_model_metrics")
    runs = sorted(path.parent for path in root.glob(f"*/{PINS}"))
    for path in [*runs, *root.glob(f"{MODELS}/*/*")]:
        os.utime(path, (0, 0))

    found = clean(profile, steps.pipeline, datetime.now(UTC) + timedelta(days=2))
    why = {folder.path.name: folder.why for folder in found}
    assert why == {
        **{
            runs[0].name: "",
            runs[1].name: "made the champion of toy, version 2",
            runs[2].name: "made the challenger of toy, version 3",
        },
        **{"v1": "", "v2": "champion of toy", "v3": "challenger of toy"},
    }
    assert [path.is_dir() for path in runs] == [False, True, True]
    assert sorted(path.name for path in (root / MODELS / MODEL).iterdir()) == ["v2", "v3"]

    steps.export()
    assert steps.rows("ops_model_metrics") == told
    assert unpack(profile, MODEL, "1", root / MODELS / MODEL).is_dir()
