"""A fork of a warm parent is told from a process of its own by nothing but how soon it begins."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from infra import endings, processes, warm

# A package that changes the environment as it is imported, as torch does.
_PACKAGE = "import os; os.environ['TORCH_OF_ITS_OWN'] = '1'"
_PARENT = """
import sys
from infra import warm
sys.path.append(sys.argv.pop())
warm.PACKAGES = {'kind': ['preloaded', 'missing']}
warm.main()
"""
_TELL = """
    import json, os, sys
    print(json.dumps({
        "argv": sys.argv[1:], "cwd": os.getcwd(), "ready": "preloaded" in sys.modules, "name": __name__,
        "told": os.environ.get("TOLD"), "only": "HOME" not in os.environ, "path": sys.path[0],
        "input": sys.stdin.read(), "parent": os.getppid(),
    }))
    print("and an error", file=sys.stderr)
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A parent that listens in a folder whose path is longer than the address of a socket may be."""
    folder = tmp_path / ("long" * 30)
    monkeypatch.setenv(warm.FOLDER, str(folder))
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "preloaded.py").write_text(_PACKAGE)
    process = subprocess.Popen([sys.executable, "-c", _PARENT, "kind", str(folder), str(tmp_path / "packages")])
    until(lambda: (folder / "kind").exists())
    until(lambda: run(tmp_path, "import sys; print('preloaded' in sys.modules)")[1] == ["True"])  # when nobody asks
    yield process
    processes.stop([process.pid])


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(tmp_path: Path, code: str, *arguments: str, **environment: str) -> warm.Process:
    module = f"told_{hashlib.sha256(code.encode()).hexdigest()[:8]}"
    file = tmp_path / f"{module}.py"
    if not file.exists():  # others may be reading it
        file.write_text(textwrap.dedent(code))
    told = {name: value for name, value in os.environ.items() if name != "HOME"} | environment
    return warm.start("kind", [sys.executable, "-m", module, *arguments], tmp_path, told)


def run(tmp_path: Path, code: str, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    lines = list[str]()
    return endings.follow(start(tmp_path, code, *arguments, **environment), lines.append), lines


def test_it_has_the_arguments_the_folder_the_environment_and_the_output_of_a_process_of_its_own(
    parent: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    code, (told, error) = run(tmp_path, _TELL, "a", "b c", TOLD="yes")
    expected = {"argv": ["a", "b c"], "cwd": str(tmp_path), "ready": True, "name": "__main__", "told": "yes"}
    assert code == 0 and error == "and an error"
    assert json.loads(told) == expected | {"only": True, "path": str(tmp_path), "input": "", "parent": parent.pid}


def test_without_a_parent_or_where_it_has_other_settings_the_command_starts_cold(
    parent: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine() -> bool:
        code, (told, _) = run(tmp_path, _TELL, **settings)
        assert code == 0
        return bool(json.loads(told)["parent"] == os.getpid())

    settings: dict[str, str] = {}
    assert not mine()
    settings = {"OMP_WAIT_POLICY": "other"}
    assert mine()
    settings = {}
    processes.stop([parent.pid])
    assert mine()
    monkeypatch.delenv(warm.FOLDER)
    assert mine()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(75)", 75),
        ("raise ValueError", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15),
        ("import atexit; atexit.register(print, 'at the end')", 0),
        ("import missing_module", 1),
        ("raise SystemExit('an Error in words')", 1),
        ("raise KeyboardInterrupt", -2),
        ("import threading; threading.Timer(0.2, print, ['at the end']).start()", 0),
        ("import sys; sys.stdout.write('no line at the end')", 0),
    ],
)
def test_it_ends_as_it_would_alone(
    parent: subprocess.Popen[bytes], tmp_path: Path, code: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked = run(tmp_path, code)
    monkeypatch.delenv(warm.FOLDER)
    alone = run(tmp_path, code)
    assert forked[0] == alone[0] == expected
    assert [line for line in forked[1] if "Error" in line or "end" in line] == [
        line for line in alone[1] if "Error" in line or "end" in line
    ]


def test_our_own_code_is_read_anew_by_each(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    for told in ("1", "22"):
        (tmp_path / "ours.py").write_text(f"value = {told}")
        assert run(tmp_path, "import ours; print(ours.value)")[1] == [told]


def test_each_draws_random_numbers_of_its_own(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    drawn = {run(tmp_path, "import random; print(random.random())")[1][0] for _ in range(3)}
    assert len(drawn) == 3


def test_many_run_side_by_side_and_each_hears_its_own_end(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    code = "import sys, time; time.sleep(0.2); print(sys.argv[1]); sys.exit(int(sys.argv[1]))"
    started = [start(tmp_path, code, str(number)) for number in range(8)]
    for number, process in enumerate(started):
        lines = list[str]()
        assert endings.follow(process, lines.append) == number
        assert lines == [str(number)] and process.poll() == number
    assert not list(Path(os.environ[warm.FOLDER]).glob("*.asked/*"))


def test_its_peak_memory_is_known_to_whoever_waits_for_it(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert run(tmp_path, "kept = bytearray(700_000_000); print(len(kept))")[0] == 0
    assert float(endings.largest().split()[2]) >= 0.6


_LONG = "import time; print('begun', flush=True); time.sleep(600)"
_ASKS = """
    import sys
    from pathlib import Path
    from infra import endings, warm
    import os
    folder = Path(sys.argv[1])
    process = warm.start("kind", [sys.executable, "-m", "told"], folder, dict(os.environ))
    print(process.pid, flush=True)
    endings.follow(process, print)
"""


def long_process(tmp_path: Path) -> tuple[subprocess.Popen[str], IO[str], int]:
    """A process that has one forked for itself; what the first says; the number of the second."""
    (tmp_path / "told.py").write_text(_LONG)
    argv = [sys.executable, "-c", textwrap.dedent(_ASKS), str(tmp_path)]
    asker = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    return asker, asker.stdout, int(asker.stdout.readline())


def test_whoever_stops_a_process_stops_what_was_forked_for_it(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    asker, _, pid = long_process(tmp_path)
    assert warm.forked_for(asker.pid) == [pid]
    processes.stop([asker.pid])
    assert not psutil.pid_exists(pid) and asker.wait() in (0, -signal.SIGTERM)  # it may have heard of the end


def test_a_process_whose_asker_was_killed_is_stopped(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    asker, told, pid = long_process(tmp_path)
    assert told.readline() == "begun\n"
    asker.kill()
    until(lambda: not psutil.pid_exists(pid))
    assert parent.poll() is None


def test_a_parent_that_is_killed_takes_its_processes_along(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    process = start(tmp_path, _LONG)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    assert process.poll() is None
    parent.kill()
    parent.wait()
    assert process.wait() == -signal.SIGKILL and not psutil.pid_exists(process.pid)


def test_nobody_else_can_ask(parent: subprocess.Popen[bytes]) -> None:
    folder = Path(os.environ[warm.FOLDER])
    assert (folder.stat().st_mode & 0o777, (folder / "kind").stat().st_mode & 0o777) == (0o700, 0o600)
