"""Assembles `build/report/index.html` from the marts: its sections, in their order."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from infra.contracts import UNDATED
from infra.dbt import marts_path
from infra.lake import Lake
from infra.ledger import Ledger
from infra.profile import Profile
from infra.report.marts import Marts, Sources
from infra.report.sections import SECTIONS

_HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Section:
    """A rendered part of the page; without a `title` the navigation does not name it."""

    name: str
    title: str
    html: Markup


def write_report(profile: Profile, lake_views: Path) -> Path:
    """Render the page from the newest marts; it is renamed into place, so a reader never sees half of it."""
    folder = profile.home / "report"
    folder.mkdir(parents=True, exist_ok=True)
    marts = Marts(marts_path(profile), lake_views)
    try:
        sources = Sources(marts, Lake(profile).contracts, Ledger(profile), folder)
        sections = list(_sections(sources))
    finally:
        marts.close()
    style = Markup((_HERE / "style.css").read_text())  # noqa: S704  (our own)
    template = _environment().get_template("page.html.j2")
    html = template.render(made_at=datetime.now(UTC), style=style, sections=sections)
    page, draft = folder / "index.html", folder / "index.html.new"
    draft.write_text(html, encoding="utf-8")
    draft.replace(page)
    return page


def _sections(sources: Sources) -> Iterator[Section]:
    environment = _environment()
    for name in SECTIONS:
        module = importlib.import_module(f"infra.report.sections.{name}")
        found = module.read(sources)
        if found is not None:
            html = environment.get_template(f"sections/{name}.html.j2").render(found)
            yield Section(name, module.TITLE, Markup(html))  # noqa: S704  (escaped by its template)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["figure"] = lambda value: f"{value:.4f}"
    environment.filters["share"] = lambda value: "-" if value is None else f"{100 * value:.1f} %"
    environment.filters["day"] = lambda value: "no date" if value == UNDATED else value.isoformat()
    environment.filters["moment"] = lambda value: value.strftime("%Y-%m-%d %H:%M UTC") if value else "-"
    return environment
