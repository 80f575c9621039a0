"""Starts long-running processes with a log file each, and stops them with everything they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from common.folders import make_folder
from infra import warm
from infra.errors import PlumblineError

COMMAND_MARK = "$ python"  # how a task's log shows the command whose own lines follow
_GRACE_SECONDS = 15
_CLOCK_SHIFT_SECONDS = 60  # the system tells a birth by its clock, which may have been set since


class ServiceFailed(PlumblineError):
    """A service did not start, or went away."""


@dataclass(frozen=True)
class Service:
    """One process that was started: its number, and its time of birth, because numbers are given to others again.

    One that is not `needed` may go away: what it does is then done without it.
    """

    name: str
    pid: int
    born: float
    log: Path
    needed: bool = True

    def alive(self) -> bool:
        """Whether it still runs (a zombie does not, nor does another process that has its number now)."""
        try:
            process = psutil.Process(self.pid)
            ours = abs(process.create_time() - self.born) < _CLOCK_SHIFT_SECONDS
            return ours and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def start(name: str, argv: Sequence[str], environment: Mapping[str, str], folder: Path) -> Service:
    """Start `argv` in its own session, so that a Ctrl-C in the terminal reaches only us and we stop it in order."""
    make_folder(folder)
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            env={**inherited(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Service(name, process.pid, psutil.Process(process.pid).create_time(), log)


def stop(pids: Sequence[int], grace: float = _GRACE_SECONDS) -> None:
    """Terminate the processes and all their descendants; what does not end within `grace` seconds is killed."""
    family = {process.pid: process for pid in pids for process in _family(pid)}
    for process in family.values():
        _signal(process, signal.SIGTERM)
    _, stubborn = psutil.wait_procs(list(family.values()), timeout=grace)
    late = {process.pid: process for survivor in stubborn for process in _family(survivor.pid)}
    for process in late.values():
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(list(late.values()), timeout=grace)


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        born = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return []
    return [*(one for process in born for other in warm.forked_for(process.pid) for one in _family(other)), *born]


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def check_alive(services: Sequence[Service]) -> None:
    """Raise ServiceFailed with the last lines of the log if one of `services` that is needed has ended."""
    for service in services:
        if service.needed and not service.alive():
            tail = "\n".join(service.log.read_text(errors="replace").splitlines()[-15:])
            raise ServiceFailed(f"{service.name} stopped.", where=str(service.log), why=f"its last lines:\n{tail}")


def free_port(wanted: int) -> int:
    """`wanted` if nothing listens there on loopback, else a free port."""
    with socket.socket() as probe:
        # Without this, a port in TIME_WAIT after a restart would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def inherited() -> dict[str, str]:
    """Our own environment, with this interpreter's folder first on PATH: tools that start tools find the right ones."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs `module` with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
