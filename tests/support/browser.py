"""A real browser where there is one: one for the whole run, since a process can drive no second."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; RLMERGE_REQUIRE_BROWSER turns its absence into a failure."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        if os.environ.get("RLMERGE_REQUIRE_BROWSER"):
            pytest.fail("needs chromium and the playwright package")
        pytest.skip("needs chromium and the playwright package")
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
