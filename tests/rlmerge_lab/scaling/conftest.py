"""Every study run once, as shipped."""

from __future__ import annotations

import pytest

from rlmerge_lab.scaling import registry


@pytest.fixture(scope="session")
def outcomes():
    """Outcomes by name."""
    return {name: registry.run(name) for name in registry.STUDIES}


@pytest.fixture(scope="session")
def results(outcomes):
    """Results by name."""
    return {name: outcome.result for name, outcome in outcomes.items()}
