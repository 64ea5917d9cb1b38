"""Every shipped method still gives the bytes it gave: any change of arithmetic must be deliberate."""

import json

import pytest

from . import make

EXPECTED = json.loads(make.DIGESTS.read_text())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return make.write_inputs(tmp_path_factory.mktemp("measured"))


def test_every_merge_has_a_digest(measured):
    assert [label for label, _, _ in make.recipes(measured)] == list(EXPECTED)


@pytest.mark.parametrize("family", make.SETS)
def test_the_bytes_are_unchanged(measured, tmp_path, family):
    found = {
        label: make.digest(recipe, options, tmp_path / label)
        for label, recipe, options in make.recipes(measured)
        if label.startswith(f"{family}-") and (family == "rl-bf16") == label.startswith("rl-bf16-")
    }
    assert found == {label: EXPECTED[label] for label in found}
    assert found
