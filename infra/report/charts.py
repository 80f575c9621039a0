"""Charts of the report as inline SVG: rows per day, shares by bin, intervals per model, task landing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure

_INK, _MUTED, _GOOD, _BAD, _ACCENT = "#1f2933", "#7b8794", "#2f855a", "#c53030", "#2b6cb0"
_STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}


def _svg(figure: Figure, label: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True)
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def rows_per_day(days: Sequence[tuple[date, int, int]]) -> str:
    """A strip of rows published per day, with quarantined rows in red below the axis."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(5.2, 0.7))
        _strip(axes, days)
        return _svg(figure, "rows per day")


def shares_by_bin(shares: Sequence[float], top: float) -> str:
    """A strip of bars side by side, the highest of them `top`, with a mark at the middle of the scale."""
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(5.2, 0.7))
        axes.bar(np.arange(len(shares)) + 0.5, shares, width=0.9, color=_ACCENT)
        axes.axvline(len(shares) / 2, color=_MUTED, linewidth=0.5)
        axes.set_xlim(0, len(shares))
        axes.set_ylim(0, top)
        _bare(axes)
        return _svg(figure, "share of scores by bin")


def _bare(axes: Axes) -> None:
    """A line below, and nothing else. No labels: drawn this small they smear, and the table's row says them."""
    axes.axhline(0, color=_MUTED, linewidth=0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)


def _strip(axes: Axes, days: Sequence[tuple[date, int, int]]) -> None:
    dates = date2num([day for day, _, _ in days])
    axes.xaxis_date()
    # One outline for all bars: years of days as shapes of their own would take seconds to draw.
    corners = np.repeat(dates, 4) + np.tile([-0.5, -0.5, 0.5, 0.5], len(days))
    for heights, colour in (([good for _, good, _ in days], _ACCENT), ([-bad for _, _, bad in days], _BAD)):
        axes.fill(corners, np.repeat(heights, 4) * np.tile([0, 1, 1, 0], len(days)), color=colour, linewidth=0)
    _bare(axes)


def intervals(rows: Sequence[dict[str, Any]], metric: str) -> str:
    """One point with its 95 % interval per model, best on top. `rows`: model, value, lo, hi."""
    ordered = sorted(rows, key=lambda row: -row["value"])[::-1]  # equal ones in the order of the table below
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(6.2, 0.34 * len(ordered) + 0.6))
        for at, row in enumerate(ordered):
            if row["lo"] is not None and row["hi"] is not None:
                axes.plot([row["lo"], row["hi"]], [at, at], color=_MUTED, linewidth=2, solid_capstyle="round")
            axes.plot(row["value"], at, "o", color=_ACCENT, markersize=6)
            axes.annotate(
                f"{row['value']:.4f}",
                (row["value"], at),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
        axes.set_yticks(range(len(ordered)), [row["model"] for row in ordered])
        axes.set_xlabel(metric)
        axes.set_xlim(left=0)
        axes.margins(y=0.15)
        axes.grid(axis="x", color="#e4e7eb")
        return _svg(figure, f"{metric} by model")


def landing(rows: Sequence[dict[str, Any]]) -> str:
    """Waiting (grey) and running (coloured) time of each task, on one clock in seconds since the first was queued."""
    start = min(row["queued_at"] or row["started_at"] for row in rows)
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(9, 0.22 * len(rows) + 0.6))
        for at, row in enumerate(reversed(rows)):
            _bar(axes, at, row, start)
        axes.set_yticks(range(len(rows)), [f"{row['dag_id']}.{row['task_id']}" for row in reversed(rows)], fontsize=7)
        axes.set_xlabel("seconds since the first task was queued")
        axes.set_axisbelow(True)
        axes.margins(y=0.01)
        axes.grid(axis="x", color="#e4e7eb")
        return _svg(figure, "task landing times")


def _bar(axes: Axes, at: int, row: dict[str, Any], start: Any) -> None:
    queued = ((row["queued_at"] or row["started_at"]) - start).total_seconds()
    started = (row["started_at"] - start).total_seconds()
    seconds = row["run_seconds"] or 0.0
    colour = _GOOD if row["state"] == "success" else _BAD
    axes.barh(at, started - queued, left=queued, color="#cbd2d9", height=0.7)
    axes.barh(at, seconds, left=started, color=colour, height=0.7)
    axes.annotate(
        f"{seconds:.0f} s",
        (started + seconds, at),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=6,
        color=_INK,
    )
