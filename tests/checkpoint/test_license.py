"""The license a card states, and the strictest of several."""

import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

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
        ("---\nlicense: 'mit'  # free\n---\n", "mit"),
        ('---\n"license": "cc-by-4.0"\n---\n', "cc-by-4.0"),
        ("\ufeff---\r\nlicense: mit\r\ntags:\r\n- rl\r\n---\r\n# Model\r\n", "mit"),
        ("---\nlicense: mit\n# a comment\n\ntags: [a]\n---\n", "mit"),
        ("---\ndate: 2024-13-45\nlicense: mit\n---\n", "mit"),
        ("---\nn: " + "9" * 5000 + "\nlicense: mit\n---\n", "mit"),
        ("---\nx: " + "[" * 5000 + "\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: mit\nlicense: gpl-3.0\n---\n", None),
        ("---\nlicense: mit\n  or gpl-3.0\n---\n", None),
        ("---\nlicense:\n- mit\n---\n", None),
        ("---\nlicense: |\n  mit\n---\n", None),
        ("---\nlicense: &a mit\n---\n", None),
        ("---\nlicense: *a\n---\n", None),
        ("---\nlicense: 'mit\n---\n", None),
        ("---\nlicense: yes\n---\n", None),
        ("---\nlicense: 3.0\n---\n", None),
        ("---\nlicense:mit\n---\n", None),
        ("---\n  license: mit\n---\n", None),
        ("---\nlicense: mit<script>\n---\n", None),
        ("---\nlicense: " + "a" * 3_000_000 + "\n---\n", None),
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
    (tmp_path / "README.md").rmdir()
    os.mkfifo(tmp_path / "README.md")
    assert read_license(tmp_path) is None
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").symlink_to("README.md")
    assert read_license(tmp_path) is None
    assert read_license(tmp_path / "a\0b") is None


VALUES = st.one_of(
    st.sampled_from(["mit", "Apache-2.0", "llama3.1", "yes", "null", "1.0", "2024-01-01", "a: b", "[", "x # y", ""]),
    st.text(max_size=8),
    st.integers(),
    st.lists(st.text(max_size=3), max_size=2),
)


@given(st.dictionaries(st.sampled_from(["license", "license_name", "tags", "language"]) | st.text(max_size=4), VALUES))
def test_what_is_read_is_what_yaml_says(tmp_path_factory, matter):
    """Whatever a well-formed card holds: our answer is YAML's, or None."""
    folder = tmp_path_factory.getbasetemp()
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(matter)}---\n# Card\n", encoding="utf-8")
    found, stated = read_license(folder), matter.get("license")
    assert found is None or found == stated.lower()
    if isinstance(stated, str) and stated.lower() in STRICTNESS:
        assert found == stated.lower()


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: f"---\n{text}\n---\n".encode()))
def test_any_card_gives_a_license_or_none(tmp_path_factory, octets):
    folder = tmp_path_factory.getbasetemp()
    (folder / "README.md").write_bytes(octets)
    found = read_license(folder)
    assert found is None or (found == found.lower() and found.isascii() and found.isprintable())


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
