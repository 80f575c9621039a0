"""Shows the chain while it runs: a live table on a terminal, one line per change elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from infra.demo.watch import Chain

_MARKS = {"success": "[green]done[/]", "running": "[cyan]running[/]", "failed": "[red]failed[/]", "queued": "queued"}


class Screen:
    """`show` is called with every poll."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._seen: dict[tuple[str, str], str] = {}

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def show(self, chain: Chain) -> None:
        """Draw, or print what changed."""
        if self._live:
            self._live.update(_table(chain))
            return
        now = datetime.now(UTC)
        for task in (task for dag in chain.in_order for task in chain.tasks.get(dag, [])):
            if task.state in ("running", "success", "failed") and self._seen.get((task.dag, task.task)) != task.state:
                self._seen[task.dag, task.task] = task.state
                clock = (now - chain.since).total_seconds()
                spent = f" in {task.seconds(now):.0f} s" if task.ended else ""
                self._console.print(f"[{clock:5.0f} s] {task.dag}.{task.task}: {task.state}{spent}", markup=False)


def _table(chain: Chain) -> Table:
    now = datetime.now(UTC)
    elapsed = (now - chain.since).total_seconds()
    table = Table(title=f"Plumbline, {elapsed:.0f} s", title_justify="left", box=None, pad_edge=False)
    for name in ("DAG", "tasks", "now", "seconds"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    for dag in chain.in_order:
        tasks = chain.tasks.get(dag, [])
        state = chain.states.get(dag, "waiting")
        running = ", ".join(task.task for task in tasks if task.state == "running")
        done = sum(task.state in ("success", "skipped") for task in tasks)
        bar = f"[green]{'█' * done}[/][dim]{'░' * (len(tasks) - done)}[/] {done}/{len(tasks)}" if tasks else "[dim]-[/]"
        seconds = sum(task.seconds(now) for task in tasks)
        table.add_row(dag, bar, running or _MARKS.get(state, state), f"{seconds:.0f}")
    return table
