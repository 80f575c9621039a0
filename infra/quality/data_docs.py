"""The Data Docs site of Great Expectations, made to open from a file with no network.

Its pages load styles, scripts and a picture from public servers. After each build, the new pages lose every outside
reference and all scripts (which only fold sections and sort tables), and get one small stylesheet for the class names
that they use; the index, which a script would fill, is written anew.
"""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.profile import Profile

DOCS_SITE = "plumbline"
_STYLE = Path(__file__).with_name("data_docs.css")
_OUTSIDE = re.compile(
    r"<script\b.*?</script>|<footer>.*?</footer>|<link\b[^>]*\bhref=[\"']?https?:[^>]*>"
    r"|<img\b[^>]*\bsrc=[\"']https?:[^>]*>|url\(\s*[\"']?https?:[^)]*\)",
    re.DOTALL,
)
_COUNT = re.compile(r"(Evaluated|Successful) Expectations</div></td><td[^>]*><div[^>]*>(\d+)<")
_STAMP = "%Y%m%dT%H%M%S.%fZ"


def site_folder(profile: Profile) -> Path:
    """Where the site is."""
    return profile.home / "report" / "data_docs"


def site_config(profile: Profile) -> dict[str, Any]:
    """The site as Great Expectations wants it described."""
    return {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site_folder(profile))},
        "show_how_to_buttons": False,
    }


def free_of_network(site: Path, since: float) -> None:
    """Clean what was written at or after `since` (seconds since the epoch), and write the index."""
    style = f"<style>\n{_STYLE.read_text()}</style>\n</head>"
    for file in (*site.rglob("*.html"), *site.rglob("*.css")):
        if file.stat().st_mtime >= since:
            # A declaration that has lost its `url(...)` is one that browsers skip.
            file.write_text(_OUTSIDE.sub("", file.read_text()).replace("</head>", style, 1))
    (site / "index.html").write_text(_index(site, style))


def _index(site: Path, style: str) -> str:
    runs = sorted(site.glob("validations/*/*/*/*.html"), key=lambda page: page.parent.name, reverse=True)
    suites = sorted(site.glob("expectations/*.html"))
    rows = "".join(_run_row(site, page) for page in runs)
    links = ", ".join(f'<a href="{_url(site, page)}">{html.escape(page.stem)}</a>' for page in suites)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Data Docs</title>\n{style}\n<body>'
        '<div class="container-fluid"><h1>Data Docs</h1>\n'
        "<p>Each run checks every partition that it builds, on its aggregates, before it is published. Its page also\n"
        'says where single rows were refused; <a href="../index.html#failures">the report</a> lists those of all\n'
        "tables, as they are now.</p>\n"
        f"<p>What is expected of: {links}</p>\n"
        '<table class="table"><thead><tr><th>Table</th><th>Partitions</th><th>Run (UTC)</th><th>Result</th></tr>'
        f"</thead>\n<tbody>{rows}</tbody></table></div></body></html>\n"
    )


def _run_row(site: Path, page: Path) -> str:
    table, at = page.parents[2].name, datetime.strptime(page.parent.name, _STAMP).replace(tzinfo=UTC)
    counts = dict(_COUNT.findall(page.read_text()))
    colour = "text-success" if counts["Successful"] == counts["Evaluated"] else "text-danger"
    return (
        f"<tr><td>{html.escape(table)}</td><td>{html.escape(page.parents[1].name)}</td>"
        f'<td><a href="{_url(site, page)}">{at:%Y-%m-%d %H:%M:%S}</a></td>'
        f"<td class='{colour}'>{counts['Successful']} of {counts['Evaluated']} expectations met</td></tr>\n"
    )


def _url(site: Path, page: Path) -> str:
    return html.escape(page.relative_to(site).as_posix(), quote=True)
