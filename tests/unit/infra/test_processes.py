from __future__ import annotations

import contextlib
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra import processes

STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
signal.pause()
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_stopping_a_service_also_ends_a_stubborn_grandchild(tmp_path: Path) -> None:
    service = processes.start("parent", [sys.executable, "-c", PARENT], {}, tmp_path)
    with service.log.open() as log:
        line = ""
        while not line.endswith("\n"):
            processes.check_alive([service])
            line += log.readline()
    grandchild = int(line)
    processes.stop([service.pid], grace=0.5)
    assert not service.alive()
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


def test_a_service_that_ended_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    service = processes.start("brief", [sys.executable, "-c", "print('no such table')"], {}, tmp_path)
    os.waitpid(service.pid, 0)
    with pytest.raises(processes.ServiceFailed, match="no such table"):
        processes.check_alive([service])
    processes.check_alive([replace(service, needed=False)])


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        assert processes.free_port(wanted) != wanted


def test_stopping_what_is_gone_is_fine(tmp_path: Path) -> None:
    service = processes.start("brief", [sys.executable, "-c", ""], {}, tmp_path)
    with contextlib.suppress(ChildProcessError):  # the interpreter may have fetched its end already
        os.waitpid(service.pid, 0)
    processes.stop([service.pid])
    assert not service.alive()


def test_a_process_that_has_the_number_of_an_old_service_is_not_that_service(tmp_path: Path) -> None:
    service = processes.start("long", [sys.executable, "-c", STUBBORN], {}, tmp_path)
    try:
        assert service.alive()
        assert not replace(service, born=service.born - 3600).alive()
    finally:
        processes.stop([service.pid], grace=0)
