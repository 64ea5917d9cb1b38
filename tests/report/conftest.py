"""An inspection of real checkpoints."""

from pathlib import Path

import pytest

from rlmerge.inspection.inspect import inspect

CHECKPOINTS = Path(__file__).parents[2] / "examples" / "checkpoints"


@pytest.fixture(scope="session")
def result():
    experts = [CHECKPOINTS / f"rl-bf16-{task}" for task in ("cnt", "rev", "shift")]
    return inspect(CHECKPOINTS / "base", experts, spectral=True).to_dict()
