"""Warm starts: a parent that has imported the packages that our commands begin with, and forks a process for each.

A training stage or a step of a DAG spends most of its start on importing torch, transformers or MLflow. A parent has
done so once, and a fork of it begins at once with the same command line, environment, folder and output as a process
of its own; it ends with the same exit codes and signals, and its memory goes back to the system. Only packages of the
environment are imported ahead, never our own code, which each fork reads anew. Parents are services of an Airflow on
one machine (`warm_starts` in the profile switches them off). Where none answers, or one was started under other
settings that count from the start of an interpreter, `start` runs the command cold.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any, Final, NoReturn, Protocol

FOLDER: Final = "PLUMBLINE_WARM"
"""The environment variable that names the folder of the parents' sockets."""
PACKAGES: Final[Mapping[str, Sequence[str]]] = {
    "steps": (
        "pyarrow.parquet", "pyiceberg.catalog.sql", "pyiceberg.table", "pyspark.sql", "duckdb", "mlflow",
        "great_expectations", "feast", "dbt.cli.main",
    ),
    "training": (
        "torch", "torch._dynamo", "transformers", "transformers.models.qwen3.modeling_qwen3", "accelerate", "peft",
        "safetensors.torch", "pyarrow.parquet", "scipy.sparse", "sentence_transformers",
    ),
}  # fmt: skip
# What an interpreter and its libraries read once, when they start.
_AT_START = ("PYTHON", "MALLOC_", "OMP_", "MKL_", "OPENBLAS_", "LD_", "HF_", "TOKENIZERS_", "TORCH")
_LONGEST = 1 << 20
_WAITING = 64


class Process(Protocol):
    """What is used of `subprocess.Popen`, for a process that was forked by a parent as well."""

    pid: int
    stdout: IO[str] | None

    def poll(self) -> int | None:
        """The exit code (negative: ended by that signal), None while it runs."""

    def wait(self) -> int:
        """Wait for the end; the exit code."""


def start(kind: str, argv: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Process:
    """Start `argv`, the interpreter first, with its output and errors as one stream of text: warm where that works.

    `kind`: which parent has imported what it needs (`PACKAGES`).
    """
    folder = os.environ.get(FOLDER)
    if folder and list(argv[:2]) == [sys.executable, "-m"]:
        with suppress(OSError, _Refused):
            return _Forked(Path(folder) / kind, argv[2:], cwd, environment)
    pipe, merged = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(argv, cwd=cwd, env=environment, stdout=pipe, stderr=merged, text=True)


class _Refused(Exception):
    """The parent was started under other settings."""


class _Forked:
    """A process that is a parent's child and not ours: the parent tells its number, and in the end how it ended."""

    def __init__(self, address: Path, argv: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        self.returncode: int | None = None
        self._parent = _connected(address)
        read, write = os.pipe()
        try:
            asked = json.dumps({"argv": list(argv), "cwd": str(cwd), "environment": dict(environment)}).encode()
            socket.send_fds(self._parent, [len(asked).to_bytes(4, "big")], [write])
            self._parent.sendall(asked)
            self._lines = self._parent.makefile("rb", buffering=0)  # what is not read yet can be selected on
            answer = json.loads(self._lines.readline() or b"{}")
            if "pid" not in answer:
                raise _Refused
        except BaseException:
            self._parent.close()
            os.close(read)
            raise
        finally:
            os.close(write)
        self.pid = int(answer["pid"])
        self.stdout: IO[str] | None = os.fdopen(read, "r", errors="replace")

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._parent], [], [], 0)[0]:
            self._hear()
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self._hear()
        assert self.returncode is not None
        return self.returncode

    def _hear(self) -> None:
        """How the process ended. A parent that is gone took it along, and nobody but the system does that."""
        from infra import endings, processes

        with closing(self._parent), closing(self._lines):
            said = self._lines.readline()
        if said:
            told = json.loads(said)
            endings.hold(told["peak_kib"])
            self.returncode = os.waitstatus_to_exitcode(told["status"])
        else:
            processes.stop([self.pid])
            self.returncode = -signal.SIGKILL


def _connected(address: Path) -> socket.socket:
    """Through the open folder: the address of a socket may be no longer than 107 bytes, and homes may be."""
    parent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder = os.open(address.parent, os.O_PATH)
    try:
        parent.connect(f"/proc/self/fd/{folder}/{address.name}")
    except BaseException:
        parent.close()
        raise
    finally:
        os.close(folder)
    return parent


class Parent:
    """Serves one kind of process until SIGTERM. Single-threaded, so that a fork copies all there is.

    It imports `packages` one by one while nobody asks: what is forked before the end imports the rest itself.
    """

    def __init__(self, address: Path, packages: Sequence[str]) -> None:
        address.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        address.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder = os.open(address.parent, os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{folder}/{address.name}")
        os.close(folder)
        address.chmod(0o600)
        self._listener.listen(_WAITING)
        self._asked_by = _records(address)
        shutil.rmtree(self._asked_by, ignore_errors=True)
        self._children: dict[int, socket.socket] = {}
        self._packages = list(packages)
        self._settings = _at_start(os.environ)  # before packages add some of their own
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def serve(self) -> dict[str, Any]:
        """Fork for each that asks; returns, in the child alone, what it is to run."""
        while True:
            watched = [self._listener, self._woken, *self._children.values()]
            ready, _, _ = select.select(watched, [], [], 0 if self._packages else None)
            if not ready:
                self._import()
            if self._woken in ready:
                os.read(self._woken, _LONGEST)
                self._bury()
            for pid in [pid for pid, client in self._children.items() if client in ready]:
                self._abandon(pid)
            if self._listener in ready:
                client, _ = self._listener.accept()
                asked = self._asked(client)
                if asked is not None:
                    return asked

    def _import(self) -> None:
        with suppress(ImportError):  # whoever needs it will say so
            importlib.import_module(self._packages.pop(0))
        gc.freeze()  # so that a collection in a fork writes to none of the pages that it shares with its parent

    def _asked(self, client: socket.socket) -> dict[str, Any] | None:
        """In a child what it is to run; None in the parent, whatever the client asked."""
        try:
            asker = _asker(client)
            asked, output = _received(client)
        except (OSError, ValueError):
            client.close()
            return None
        if _at_start(asked["environment"]) != self._settings:
            _say(client, {"refused": "other settings"})
            client.close()
        elif (pid := os.fork()) == 0:
            self._leave(client)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.close(output)
            return asked
        else:
            self._children[pid] = client
            _record(self._asked_by, asker, pid).touch()
            _say(client, {"pid": pid})
        os.close(output)
        return None

    def _bury(self) -> None:
        """Tell of every child that has ended to whom waits for it."""
        while found := _ended():
            pid, status, used = found
            for record in self._asked_by.glob(f"*-{pid}"):
                record.unlink()
            if client := self._children.pop(pid, None):
                _say(client, {"status": status, "peak_kib": used.ru_maxrss})
                client.close()

    def _abandon(self, pid: int) -> None:
        """Stop a child whose asker is gone: nobody would ever stop it, or hear how it ended."""
        self._children.pop(pid).close()
        os.kill(pid, signal.SIGTERM)

    def _leave(self, client: socket.socket) -> None:
        """What the child has of the parent's and is not to keep."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for held in (self._listener, client, *self._children.values()):
            held.close()
        os.close(self._woken)
        os.close(self._waker)


def _asker(client: socket.socket) -> int:
    """The number of the process that asks; ValueError where it is another user's."""
    told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, user = (int.from_bytes(told[place : place + 4], sys.byteorder) for place in (0, 4))
    if user != os.getuid():
        raise ValueError("another user")
    return pid


def _ended() -> tuple[int, int, Any] | None:
    with suppress(ChildProcessError):
        pid, status, used = os.wait4(-1, os.WNOHANG)
        return (pid, status, used) if pid else None
    return None


def _records(address: Path) -> Path:
    return address.parent / f"{address.name}.asked"


def _record(folder: Path, asker: int, pid: int) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{asker}-{pid}"


def forked_for(pid: int) -> list[int]:
    """The processes that parents have forked for the process `pid`: they are its children in all but name."""
    folder = os.environ.get(FOLDER)
    found = Path(folder).glob(f"*.asked/{pid}-*") if folder else ()
    return [int(record.name.partition("-")[2]) for record in found]


def _received(client: socket.socket) -> tuple[dict[str, Any], int]:
    client.settimeout(10)
    head, (output,), _, _ = socket.recv_fds(client, 4, 1)
    try:
        left, parts = int.from_bytes(head, "big"), list[bytes]()
        if len(head) < 4 or left > _LONGEST:
            raise ValueError("not a request")
        while left and (part := client.recv(left)):
            parts.append(part)
            left -= len(part)
        return json.loads(b"".join(parts)), output
    except BaseException:
        os.close(output)
        raise


def _say(client: socket.socket, what: Mapping[str, object]) -> None:
    with suppress(OSError):  # whoever asked may be gone
        client.sendall(json.dumps(what).encode() + b"\n")


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_AT_START)}


def become(asked: Mapping[str, Any]) -> None:
    """Be, in a fork of the parent, the interpreter that `python -m ...` would have started."""
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    sys.argv = list(asked["argv"])
    sys.path[0] = asked["cwd"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "infra"]:
        del sys.modules[name]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    import runpy

    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def ended(asked: Mapping[str, Any]) -> int:
    """`become`, and with which code that interpreter would have ended."""
    try:
        become(asked)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        sys.stderr.write(f"{end.code}\n")
        return 1
    except BaseException as error:  # noqa: BLE001 - whatever it is, an interpreter shows it and ends
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        return 1
    return 0


def leave(code: int) -> NoReturn:
    """End as an interpreter does, but leave the memory to the system: to take apart all that the parent has imported
    takes a second and a half."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def main() -> None:
    """`python -m infra.warm KIND FOLDER`."""
    kind, folder = sys.argv[1:]
    leave(ended(Parent(Path(folder) / kind, PACKAGES[kind]).serve()))


if __name__ == "__main__":
    main()
