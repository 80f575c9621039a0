from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from infra.errors import DataError, exit_with_reason

_BAD_DATA = DataError("The file is empty.", where="a.csv", why="0 bytes", do="Deliver it again.")


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (_BAD_DATA, 65, "error: The file is empty.\n  where: a.csv\n  why:   0 bytes\n  do:    Deliver it again.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 75, "The disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 70, "where: /x"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_a_person_can_mend_is_said_in_lines_with_its_exit_code(
    raised: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise raised

    with pytest.raises(SystemExit) as left:
        exit_with_reason(main)
    assert left.value.code == code
    assert said in capsys.readouterr().err


def test_a_missing_file_of_our_own_is_a_bug_and_keeps_its_traceback() -> None:
    def main() -> int:
        raise FileNotFoundError(errno.ENOENT, "No such file", "/x")

    with pytest.raises(FileNotFoundError):
        exit_with_reason(main)


def test_a_reader_that_stops_reading_sees_no_traceback() -> None:
    code = "from infra.errors import exit_with_reason\ndef main():\n while True: print('line')\nexit_with_reason(main)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stderr is not None
        writer.stdout.readline()
        writer.stdout.close()
        assert writer.stderr.read() == b""
    assert writer.returncode == 0
