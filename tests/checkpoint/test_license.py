"""The license a card states, and the strictest of several."""

import pytest

from rlmerge.checkpoint.license import STRICTNESS, read_license, strictest


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: mit\n---\n# Model\n", "mit"),
        ("---\nlanguage: en\nlicense: Apache-2.0\ntags: [rl]\n---\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: qwen\n---\n", "other"),
        ("---\nlanguage: en\n---\nlicense: mit\n", None),
        ("---\nlicense: [mit, gpl-3.0]\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("---\n- license\n---\n", None),
        ("---\nlicense: {\n---\n", None),
        ("# Model\nlicense: mit\n", None),
        ("", None),
        ("---\nlicense: !!python/object/apply:os.system [true]\n---\n", None),
    ],
)
def test_the_license_is_the_front_matters(tmp_path, card, license):
    (tmp_path / "README.md").write_text(card)
    assert read_license(tmp_path) == license


def test_a_card_that_cannot_be_read_states_none(tmp_path):
    assert read_license(tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\xff\n---\n")
    assert read_license(tmp_path) is None
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").mkdir()
    assert read_license(tmp_path) is None


@pytest.mark.parametrize(
    ("licenses", "found"),
    [
        (["mit"], "mit"),
        (["mit", "apache-2.0", "mit"], "apache-2.0"),
        (["gpl-3.0", "apache-2.0"], "gpl-3.0"),
        (["apache-2.0", "llama3.1"], "llama3.1"),
        (["llama3.1", "cc-by-nc-4.0"], "cc-by-nc-4.0"),
        (["mit", None], None),
        ([], None),
        (["my-own", "my-own"], "my-own"),
        (["my-own", "mit"], "other"),
        (["cc-by-nc-4.0", "my-own"], "other"),
    ],
)
def test_the_strictest_counts(licenses, found):
    assert strictest(licenses) == found
    assert strictest(reversed(licenses)) == found


def test_restrictions_only_grow():
    assert len(set(STRICTNESS)) == len(STRICTNESS)
    order = ["unlicense", "mit", "apache-2.0", "lgpl-3.0", "gpl-3.0", "agpl-3.0", "llama3", "cc-by-nc-4.0"]
    assert sorted(order, key=STRICTNESS.index) == order
