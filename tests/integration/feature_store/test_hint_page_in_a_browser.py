"""The page of hints as a browser shows it: beside the report without a server, and served. Skipped without Chromium."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By

from feature_store.hint_page import ADDRESS, add_hint_page, write_hint_page
from feature_store.serve import application
from feature_store.store import opened_store
from infra.lake import Lake
from infra.processes import free_port
from tests.integration.feature_store.test_hint_page import HOSTILE, hinted

__all__ = ["hinted"]
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no browser here: apt-get install chromium chromium-driver"
)
_QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in (*_QUIET.split(), f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(argument)
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def address(hinted: Any) -> Iterator[str]:
    """Where the feature server answers."""
    with opened_store(hinted.profile) as store:
        app = application(store)
        add_hint_page(app, Lake(hinted.profile), store)
        port = free_port(hinted.profile.ports.feast)  # some ports no browser opens
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}{ADDRESS}"
        server.should_exit = True
        thread.join()


def shown(browser: Chrome) -> list[str]:
    """The cards that are seen, as words."""
    return [" ".join(card.text.split()) for card in browser.find_elements(By.CLASS_NAME, "card") if card.is_displayed()]


def test_who_is_chosen_is_seen_and_nobody_else(hinted: Any, browser: Chrome) -> None:
    path = write_hint_page(hinted.profile)
    assert path is not None
    browser.get(path.as_uri())
    (first,) = shown(browser)
    assert first.startswith("ann Did last: Pen <b> i1 Search: blue ink") and f"{HOSTILE} co click" in first
    for link, card in (
        ("bob", "bob Did last: an item that is gone"),
        ("قلم", "the search قلم Place Query Score 1 ink"),
    ):
        browser.find_element(By.PARTIAL_LINK_TEXT, link).click()
        (own,) = shown(browser)
        assert own.startswith(card)
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_whoever_is_asked_for_is_seen_first(address: str, browser: Chrome) -> None:
    browser.get(address)
    asked = browser.find_element(By.NAME, "user")
    asked.send_keys(f" bob{HOSTILE} ")
    asked.submit()
    (own,) = shown(browser)
    assert own.startswith(f"bob{HOSTILE} The online store has no hints for this person")
    browser.find_element(By.NAME, "user").clear()
    browser.find_element(By.NAME, "trigger").send_keys("i1")
    browser.find_element(By.TAG_NAME, "button").click()
    (own,) = shown(browser)
    assert own.startswith("Pen <b> i1 Place Query Score 1 red pens")
