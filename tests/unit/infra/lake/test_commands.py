"""The commands of lake and ledger, as a person types them: what they print and their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import infra.bench
import infra.lake.__main__ as lake_command
import infra.ledger.__main__ as ledger_command
from infra.errors import EXIT_BUG, EXIT_DATA, PlumblineError, exit_with_reason
from infra.lake import Lake
from infra.partitions import PartitionWrite
from infra.profile import Profile
from tests.lake_kit import Day, Shop, day, sales_contract

Run = Callable[[str], tuple[int, str]]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path))
    for module in ("infra.lake.lake", "infra.ledger.__main__"):
        monkeypatch.setattr(f"{module}.all_contracts", lambda: {"sales": sales_contract()})
    return Shop(tmp_path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    mains = {"lake": lake_command.main, "ledger": ledger_command.main}

    def run_command(line: str) -> tuple[int, str]:
        room, *arguments = line.split()
        monkeypatch.setattr(sys, "argv", [room, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            exit_with_reason(mains[room])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out + captured.err

    return run_command


def test_tables_lists_every_table_and_its_quarantine_even_when_empty(shop: Shop, run: Run) -> None:
    assert run("lake tables")[0] == 0
    shop.publish({day(0): Day((1, 2), bad=(3,)), day(1): Day((4,))})
    lines = [line.split() for line in run("lake tables")[1].splitlines()]
    assert lines[1][:6] == ["sales", "simulated", "3", "2", "2024-02-27", "2024-02-28"]
    assert lines[2][:4] == ["sales_quarantine", "simulated", "1", "1"]


def test_show_tells_what_a_row_is_and_what_each_partition_holds(shop: Shop, run: Run) -> None:
    shop.publish({day(0): Day((1, 2), bad=(3,))})
    code, out = run("lake show sales")
    assert code == 0
    assert "One row per sale. Key: shop." in out
    last = out.splitlines()[-1].split()
    assert last[:3] == ["2024-02-27", "2", "1"]
    assert last[4] == "1"


def test_history_and_rollback_go_back_and_forth(shop: Shop, run: Run) -> None:
    first = shop.publish({day(0): Day((1,))}).snapshot_id
    second = shop.publish({day(0): Day((2,)), day(1): Day((3,))}).snapshot_id
    out = run("lake history sales")[1]
    assert str(first) in out
    assert f"current  {second}" in out
    code, out = run(f"lake rollback sales --snapshot {first}")
    assert (code, out.strip()) == (0, f"sales is at {first}: 1 partitions restored, 1 now missing.")
    assert shop.rows() == {day(0): (1,)}
    assert run("ledger missing --asset sales --from 2024-02-27 --to 2024-02-29")[1].split() == [
        "2024-02-28",
        "2024-02-29",
    ]
    assert run(f"lake rollback sales --snapshot {second}")[0] == 0
    assert shop.rows() == {day(0): (2,), day(1): (3,)}
    actions = [line.split()[4] for line in run("ledger history --asset sales")[1].splitlines()[1:]]
    assert actions == ["publish", "publish", "publish", "restore", "withdraw", "restore", "restore"]


def test_verify_ends_with_the_data_code_where_a_file_is_missing(shop: Shop, run: Run) -> None:
    shop.publish({day(0): Day((1,))})
    assert run("lake verify")[0] == 0
    Path(shop.lake.files("sales")[0].path).unlink()
    code, out = run("lake verify")
    assert code == EXIT_DATA
    assert "a live file is missing" in out


def test_reconcile_ends_with_65_where_rows_were_lost(shop: Shop, run: Run) -> None:
    shop.publish({day(0): Day((1,))})
    assert run("ledger reconcile") == (
        0,
        "In balance: records delivered = rows out + quarantined, in every landing file and committed partition.\n",
    )
    attempt = shop.ledger.open_attempt("sales", [day(1)])
    (write,) = shop.stage({day(1): Day((1,))}, attempt)
    object.__setattr__(write, "rows_in", 3)
    shop.ledger.record(attempt, [write], None)
    code, out = run("ledger reconcile")
    assert code == EXIT_DATA
    assert out.splitlines()[-1].split() == ["sales", "2024-02-28", "3", "1", "0", "2"]


def test_expire_and_export_say_what_they_did(shop: Shop, run: Run) -> None:
    shop.publish({day(0): Day((1,))})
    assert run("lake expire") == (0, "Nothing was old enough.\n")
    code, out = run("lake export")
    assert code == 0
    assert Path(out.strip()).is_file()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("lake show sale", EXIT_DATA, "There is no table 'sale'.\n  do:    Choose one of: sales."),
        ("lake rollback sales --snapshot 1", EXIT_DATA, "Nothing was ever published to 'sales'."),
        ("lake rollback sales_quarantine --snapshot 1", EXIT_DATA, "A quarantine goes back with its table."),
        ("lake history sales", 0, "Nothing was ever published to sales."),
        ("ledger history", 0, "The ledger has no such row."),
    ],
)
def test_a_question_without_an_answer_gets_a_sentence_not_a_traceback(
    shop: Shop, run: Run, line: str, code: int, said: str
) -> None:
    ended, out = run(line)
    assert ended == code
    assert said in out


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("missing --asset salse --from 2024-02-27 --to 2024-02-28", EXIT_DATA, "There is no asset 'salse'."),
        ("history --asset salse", EXIT_DATA, "There is no asset 'salse'."),
        ("missing --asset sales --from 2024-02-28 --to 2024-02-27", EXIT_DATA, "backwards: from 2024-02-28"),
        ("missing --asset sales --from 27.2.2024 --to 2024-02-27", 2, "'27.2.2024' is not a day"),
    ],
)
def test_a_question_with_a_slip_in_it_is_refused_and_not_answered_with_nothing(
    shop: Shop, run: Run, line: str, code: int, said: str
) -> None:
    ended, out = run(f"ledger {line}")
    assert ended == code
    assert said in out


def test_the_ledger_is_asked_for_tables_never_filled_and_for_assets_that_are_no_table(shop: Shop, run: Run) -> None:
    span = "--from 2024-02-27 --to 2024-02-28"
    assert run(f"ledger missing --asset sales {span}") == (0, "2024-02-27\n2024-02-28\n")
    attempt = shop.ledger.open_attempt("online.sales", [day(0)])
    shop.ledger.record(attempt, [PartitionWrite(day(0), "k", (), 1, 1)], None)
    assert run(f"ledger missing --asset online.sales {span}") == (0, "2024-02-28\n")


def test_a_rollback_to_a_version_that_is_not_there_points_to_the_history(shop: Shop, run: Run) -> None:
    shop.publish({day(0): Day((1,))})
    code, out = run("lake rollback sales --snapshot 5")
    assert code == EXIT_DATA
    assert "has no version 5" in out
    assert "python -m infra.lake history sales" in out


def test_a_damaged_catalogue_is_named_and_what_to_do_about_it(shop: Shop, run: Run) -> None:
    catalogue = shop.home / "lake" / "catalog.db"
    catalogue.parent.mkdir(parents=True, exist_ok=True)
    catalogue.write_text("not a database, but long enough to be looked at\n" * 100)
    code, out = run("lake tables")
    assert code == EXIT_BUG
    assert out.startswith("error: The database is damaged.\n  where: ")
    assert str(catalogue) in out


@pytest.mark.parametrize("place", ["/proc/x", "{home}/file"])
def test_a_folder_of_the_catalogue_that_cannot_be_made_is_named(
    shop: Shop, run: Run, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (shop.home / "file").touch()
    folder = place.format(home=shop.home)
    monkeypatch.setenv("PLUMBLINE__LAKE__CATALOG_URI", f"sqlite:///{folder}/catalog.db")
    code, out = run("lake tables")
    assert code == EXIT_BUG
    assert out.startswith(f"error: A folder could not be made.\n  where: {folder}\n")


def test_a_warehouse_below_which_no_folder_can_be_made_is_named(profile: Profile) -> None:
    lake = Lake(profile.model_copy(update={"lake": profile.lake.model_copy(update={"warehouse": "/proc/x"})}))
    with pytest.raises(PlumblineError, match="A folder could not be made"):
        lake.staging("events", "key", day(0), 1)


def test_a_warehouse_that_is_no_folder_is_refused(shop: Shop, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE__LAKE__WAREHOUSE", "s3://bucket/lake")
    assert "The warehouse must be a folder" in run("lake tables")[1]


def test_a_benchmark_is_found_by_its_name_and_its_result_says_where_it_was_measured(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert infra.bench.benchmarks()["publish"] == "infra.lake.bench"
    figures = {"ours": 3.0, "peer": 2.0, "unit": "s", "runs": 5}
    monkeypatch.setattr("infra.lake.bench.bench_publish", lambda: figures)
    infra.bench.measure(shop.profile, "publish", "infra.lake.bench")
    written = json.loads((shop.home / "bench" / "publish.json").read_text())
    assert {"name": "publish", "ratio": 1.5, **figures}.items() <= written.items()
    assert written["machine"]
    assert written["commit"]


def test_a_benchmark_that_lacks_data_says_so_and_writes_no_figure(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lacking")
    module.bench_far = lambda: {"skipped": "no folder of data sets"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lacking", module)
    assert infra.bench.measure(shop.profile, "far", "lacking") == {"name": "far", "skipped": "no folder of data sets"}
    assert not (shop.profile.home / "bench" / "far.json").exists()


def test_medians_are_taken_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    infra.bench.in_turns(2, lambda: calls.append("ours"), lambda: calls.append("peer"))
    assert calls == ["ours", "peer"] * 3


def test_memory_that_work_or_its_child_holds_is_in_the_measure() -> None:
    hold = "import sys; held = bytearray(b'1' * 2**28); print('held', flush=True); sys.stdin.read()"

    def work() -> Any:
        child = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        return child, child.stdout.readline()

    _, _, before = infra.bench.measured(lambda: None)
    (child, said), seconds, peak = infra.bench.measured(work)
    with child:
        child.kill()
    assert said == "held\n"
    assert seconds > 0
    assert peak - before > 0.2


def test_tables_of_simulated_events_are_called_so(shop: Shop, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = replace(sales_contract(), origin="real")
    monkeypatch.setattr("infra.lake.lake.all_contracts", lambda: {"sales": real})
    assert " real " in run("lake tables")[1]
    monkeypatch.setenv("PLUMBLINE__LANDING_ORIGIN", "simulated")
    assert " real " not in run("lake tables")[1]
