"""Headers of safetensors files against the safetensors library, and bombs of every kind."""

import random
from collections import Counter

from support.attacks import headers


def test_the_verdict_is_the_librarys_or_stricter_as_documented(tmp_path):
    rng = random.Random(0)
    seen = Counter(headers.check(headers.attack(rng), tmp_path / "f") for _ in range(5000))
    # The generator reaches every verdict: a test of refusals alone could not fail.
    assert seen["read by both"] > 300
    assert seen["refused by both"] > 1000
    assert len(seen) >= 7, seen
