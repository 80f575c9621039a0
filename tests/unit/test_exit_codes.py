"""A name that a person mistypes is refused alike by the commands of all rooms: a sentence, what there is, and 65."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from infra.errors import EXIT_DATA, exit_with_reason

RUN = "--run-id r --partition 2018-01-05"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("infra.lake show sale", "There is no table 'sale'."),
        ("infra.ledger history --asset sale", "There is no asset 'sale'."),
        ("feature_store training-set --table sale --partition 2018-01-05", "There is no training set 'sale'."),
        ("spark_jobs leakage --table sale", "Table 'sale' has no contract."),
        ("registry history --model sale", "Model 'sale' has no gate."),
        ("registry gate --model sale", "Model 'sale' has no gate."),
        (f"dags.steps.run_stage run --system sale --stage sft {RUN}", "There is no system 'sale'."),
        (f"dags.steps.run_stage run --system generative_rec --stage sale {RUN}", "generative_rec has no stage 'sale'."),
        (f"dags.steps.run_stage run --system generative_rec --job sale {RUN}", "generative_rec has no job 'sale'."),
    ],
)
def test_a_name_that_nobody_knows_ends_every_command_with_65(
    line: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, *arguments = line.split()
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    name = module if module.startswith("dags.") else f"{module}.__main__"
    with pytest.raises(SystemExit) as ended:
        exit_with_reason(importlib.import_module(name).main)
    assert said in capsys.readouterr().err
    assert ended.value.code == EXIT_DATA


def test_a_profile_that_there_is_not_ends_a_command_with_65(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_PROFILE", "sale")
    monkeypatch.setattr(sys, "argv", ["infra.lake", "tables"])
    with pytest.raises(SystemExit) as ended:
        exit_with_reason(importlib.import_module("infra.lake.__main__").main)
    assert ended.value.code == EXIT_DATA
