import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.options import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5_000_000_000),
        ("512MiB", 536_870_912),
        ("1.5 GB", 1_500_000_000),
        ("2gb", 2_000_000_000),
        ("64kB", 64_000),
        ("1KiB", 1024),
        ("2TB", 2 * 10**12),
        ("17B", 17),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["5", "5G", "GB", "-5GB", "1e9B", "5 GBs", "", "0GB", "0.0001kB", "1.5B", "５GB x"])
def test_anything_ambiguous_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a size|whole, positive"):
        parse_size(text)


@given(st.integers(1, 10**15))
def test_bytes_read_back(size):
    assert parse_size(f"{size}B") == size
