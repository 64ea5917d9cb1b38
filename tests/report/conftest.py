"""An inspection of real checkpoints, and a real browser where there is one."""

import os
import shutil
from pathlib import Path

import pytest

from rlmerge.inspection.inspect import inspect

CHECKPOINTS = Path(__file__).parents[2] / "examples" / "checkpoints"


@pytest.fixture(scope="session")
def result():
    experts = [CHECKPOINTS / f"rl-bf16-{task}" for task in ("cnt", "rev", "shift")]
    return inspect(CHECKPOINTS / "base", experts, spectral=True).to_dict()


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
