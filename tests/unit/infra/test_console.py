from __future__ import annotations

from datetime import UTC, datetime

import pytest

from infra.console import print_table


def test_text_in_brackets_is_printed_and_lines_stay_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("recall@10 [history=1-2]", 12, None, datetime(2018, 1, 5, tzinfo=UTC)), ("[red]" + "x" * 120, 3, "-", "")]
    print_table(("check", "n", "from", "at"), rows, "Nothing.")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["recall@10", "[history=1-2]", "12", "-", "2018-01-05", "00:00:00"]
    assert lines[2].startswith("[red]" + "x" * 120)


def test_no_rows_are_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("n",), [], "Nothing [yet].")
    assert capsys.readouterr().out == "Nothing [yet].\n"
