"""Data Docs open from a file with no network: nothing in the site asks for anything outside it."""

from __future__ import annotations

import os
import re
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from infra.profile import Profile, load_profile
from infra.quality import failing_keys_path
from infra.quality.data_docs import free_of_network, site_folder
from infra.quality.row_notes import tell_of_rows

PAGE = """<html><head>
<link rel="stylesheet" href="https://maxcdn.example/bootstrap.min.css"/>
<script src="https://code.example/jquery.js"></script>
<style>.logo { background: url('https://assets.example/full.png') no-repeat; color: red }
 .own { background: url("static/own.png"); }</style>
</head><body><img
  src="https://assets.example/logo.png?who=1" alt="logo"/>
<td><div>Evaluated Expectations</div></td><td id="a"><div class="b">4</div></td>
<td><div>Successful Expectations</div></td><td id="c"><div class="b">3</div></td>
<div id="section-2">an expectation</div>
<script>fold()</script><p>kept <a href="https://docs.example">link to follow</a></p>
<footer>news</footer></body></html>"""
STYLES = ".hero { background-image: url( https://assets.example/hero.jpg ); margin: 0 }"
LOADED_BY_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]*)")


class References(HTMLParser):
    """What a browser would load of a page from another place: every address but that of a link to follow."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found = LOADED_BY_CSS.findall(page)
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            self.found += [value for _name, value in attrs if value and re.match(r"(https?:)?//", value)]


def site(folder: Path) -> Path:
    page = folder / "validations" / "events" / "2024-03-01 to 2024-03-02" / "20240303T040506.000007Z" / "x.html"
    page.parent.mkdir(parents=True)
    page.write_text(PAGE)
    (folder / "index.html").write_text(PAGE)
    (folder / "static").mkdir()
    (folder / "static" / "styles.css").write_text(STYLES)
    return page


def test_no_page_loads_anything_from_outside_and_its_text_is_kept(tmp_path: Path) -> None:
    page = site(tmp_path)
    assert len(References(PAGE).found) == 4
    free_of_network(tmp_path, since=0)
    for html in tmp_path.rglob("*.html"):
        assert References(html.read_text()).found == [], html
        assert "<style>" in html.read_text()
    for kept in ("kept", "https://docs.example", 'url("static/own.png")', "color: red"):
        assert kept in page.read_text()
    assert "news" not in page.read_text()


def test_a_stylesheet_of_the_site_loads_nothing_from_outside(tmp_path: Path) -> None:
    site(tmp_path)
    free_of_network(tmp_path, since=0)
    assert (tmp_path / "static" / "styles.css").read_text() == ".hero { background-image: ; margin: 0 }"


def test_the_index_names_table_partitions_time_and_how_many_expectations_were_met(tmp_path: Path) -> None:
    site(tmp_path)
    free_of_network(tmp_path, since=0)
    index = (tmp_path / "index.html").read_text()
    for part in ("events", "2024-03-01 to 2024-03-02", "2024-03-03 04:05:06", "text-danger'>3 of 4 expectations met"):
        assert part in index


def test_pages_of_earlier_builds_are_left_alone(tmp_path: Path) -> None:
    page = site(tmp_path)
    os.utime(page, (1_000, 1_000))
    free_of_network(tmp_path, since=2_000)
    assert page.read_text() == PAGE


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    return load_profile("local", environ={"PLUMBLINE__HOME": str(tmp_path / "a home")})


def aggregates(day: date, refused: int, **broken: int) -> dict[str, Any]:
    return {"partition": day, "rows_quarantined": refused, **{f"rule_{name}": rows for name, rows in broken.items()}}


def test_a_page_says_which_partitions_broke_a_row_rule_and_links_to_the_refused_rows(profile: Profile) -> None:
    page, refused, warned = site(site_folder(profile)), date(2024, 3, 1), date(2024, 3, 2)
    sound = aggregates(date(2024, 3, 3), 0, price_not_negative=0)
    broken = [aggregates(refused, 2, price_not_negative=2, has_text=1), aggregates(warned, 0, has_text=3)]
    tell_of_rows(profile, "events", [*broken, sound], since=0)
    told = page.read_text().split('<div id="section-2"')[0]
    (href,) = re.findall(r'href="(.*csv)"', told)
    assert re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", told) == [
        ("2024-03-02", "has_text (3)", "0"),
        ("2024-03-01", "price_not_negative (2), has_text (1)", f'<a href="{href}">2 (CSV)</a>'),
    ]
    assert (page.parent / href).resolve() == failing_keys_path(profile, "events", refused)
    assert "events_quarantine" in told


def test_a_page_of_a_run_without_bad_rows_says_so(profile: Profile) -> None:
    page = site(site_folder(profile))
    tell_of_rows(profile, "events", [aggregates(date(2024, 3, 1), 0, price_not_negative=0)], since=0)
    assert "No row broke a rule." in page.read_text()


def test_a_page_of_another_table_or_an_earlier_run_is_not_told_of_rows(profile: Profile) -> None:
    page = site(site_folder(profile))
    tell_of_rows(profile, "items", [], since=0)
    tell_of_rows(profile, "events", [], since=page.stat().st_mtime + 1)
    assert page.read_text() == PAGE


def test_of_many_bad_partitions_the_newest_are_listed_and_the_rest_is_counted(profile: Profile) -> None:
    page, first = site(site_folder(profile)), date(2024, 1, 1)
    tell_of_rows(profile, "events", [aggregates(first + timedelta(days=n), 1, late=1) for n in range(103)], since=0)
    text = page.read_text()
    assert text.count("late (1)") == 100 and "3 older partitions are not shown" in text
    assert "2024-01-03" not in text and "2024-01-04" in text
