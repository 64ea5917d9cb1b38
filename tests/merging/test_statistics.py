"""Statistics before a formula: how often the inputs are read, and what is known without reading."""

import pytest

from rlmerge.merging.stream import Workers
from support.family import merge, recipe


@pytest.fixture
def reads(monkeypatch):
    """[bytes handed to kernels] of everything that runs."""
    total = [0]
    original = Workers.submit

    def counted(self, tile, work, **more):
        total[0] += tile.nbytes
        return original(self, tile, work, **more)

    monkeypatch.setattr(Workers, "submit", counted)
    return total


@pytest.mark.parametrize(
    ("method", "parameters", "passes"),
    [
        ("task_arithmetic", {}, 1),
        ("dare_ties", {"density": 0.5}, 1),
        ("ram", {}, 1),
        ("ties", {"density": 1.0}, 1),
        ("ties", {"density": 1.0, "scope": "global"}, 1),
        ("ties", {"density": 0.5}, 2),
        ("ties", {"density": 0.5, "scope": "global"}, 2),
        ("ram_plus", {}, 2),
        ("ram_plus", {"r": 0.0}, 1),
        ("ram_percentile", {}, 3),
        ("dare_linear", {"density": 0.5, "rescale": "l1"}, 2),
    ],
    ids=lambda value: "-".join(f"{k}{v}" for k, v in value.items()) if isinstance(value, dict) else str(value),
)
def test_passes_over_the_inputs(family, tmp_path, reads, method, parameters, passes):
    """One for the merge, and one for every stage of statistics that is not known beforehand."""
    result = merge(recipe(family, method, **parameters), tmp_path / "out", cache=False)
    copied = 4 * 7 * 8  # the integers, read once whatever the method
    assert reads[0] == copied + passes * (result.bytes_read - copied)


def test_a_kept_scan_saves_its_pass(family, tmp_path, reads):
    asked = recipe(family, "ties", density=0.5)
    merge(asked, tmp_path / "one")
    first, reads[0] = reads[0], 0
    result = merge(asked, tmp_path / "two")
    assert reads[0] == result.bytes_read < first
