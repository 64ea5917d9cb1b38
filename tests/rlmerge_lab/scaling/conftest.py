"""Every study run once, as shipped."""

from __future__ import annotations

import pytest

from rlmerge_lab.scaling import STUDIES, run


@pytest.fixture(scope="session")
def outcomes():
    """Outcomes by name."""
    return {name: run(name) for name in STUDIES}


@pytest.fixture(scope="session")
def results(outcomes):
    """Results by name."""
    return {name: outcome.result for name, outcome in outcomes.items()}
