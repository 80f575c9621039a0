"""Assembles `build/report/index.html` from the marts: its sections, in their order."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.folders import make_folder
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
    folder = make_folder(profile.home / "report")
    marts = Marts(marts_path(profile), lake_views)
    try:
        sources = Sources(marts, Lake(profile).contracts, Ledger(profile), folder)
        sections = list(_sections(sources))
    finally:
        marts.close()
    html = environment().get_template("page.html.j2").render(made_at=datetime.now(UTC), sections=sections)
    return put_page(folder / "index.html", html)


def put_page(page: Path, html: str) -> Path:
    """Write a page of the report, beside the others."""
    draft = make_folder(page.parent) / f"{page.name}.new"
    draft.write_text(html, encoding="utf-8")
    return draft.replace(page)


def _sections(sources: Sources) -> Iterator[Section]:
    templates = environment()
    for name in SECTIONS:
        module = importlib.import_module(f"infra.report.sections.{name}")
        found = module.read(sources)
        if found is not None:
            html = templates.get_template(f"sections/{name}.html.j2").render(found)
            yield Section(name, module.TITLE, Markup(html))  # noqa: S704  (escaped by its template)


def environment(*folders: Path) -> Environment:
    """What pages are rendered by, which escapes all that it is given: templates here, and in `folders`."""
    loader = FileSystemLoader([_HERE, *folders])
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.globals["style"] = Markup((_HERE / "style.css").read_text())  # noqa: S704  (our own)
    templates.filters["count"] = lambda value: f"{value:,}"
    templates.filters["figure"] = lambda value: f"{value:.4f}"
    templates.filters["share"] = lambda value: "-" if value is None else f"{100 * value:.1f} %"
    templates.filters["day"] = lambda value: "no date" if value == UNDATED else value.isoformat()
    templates.filters["moment"] = lambda value: value.strftime("%Y-%m-%d %H:%M UTC") if value else "-"
    return templates
