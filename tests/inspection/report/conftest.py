"""An inspection of real checkpoints."""

import pytest

from rlmerge.inspection.inspect import inspect
from support.checkpoints import BASE, EXAMPLES


@pytest.fixture(scope="session")
def found():
    return inspect(BASE, [EXAMPLES / f"rl-bf16-{task}" for task in ("cnt", "rev", "shift")], spectral=True)
