import math

import pytest

from rlmerge.report.axes import axis, row_label
from rlmerge.text import columns, fit


def test_values_map_between_their_ends_with_a_margin():
    x = axis([-1.0, 1.0, math.nan], 0.0, 100.0, pad=0.25)
    assert (x.low, x.high) == (-1.5, 1.5)
    assert [x(v) for v in (-1.5, 0.0, 1.5)] == [0.0, 50.0, 100.0]
    assert [x(v) for v in (-9.0, 9.0)] == [0.0, 100.0]  # outside: at the nearer end


def test_ends_that_are_asked_for_have_no_margin():
    x = axis([0.2, 0.8], 0, 1, within=[0.0, 1.0])
    assert (x.low, x.high) == (0.0, 1.0)
    assert axis([0.5], 0, 1).low < 0.5 < axis([0.5], 0, 1).high
    assert axis([0.0], 0, 1).low < 0 < axis([0.0], 0, 1).high


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors():
    x = axis([], 0.0, 90.0, log=True, within=[0.01, 10.0], pad=0.0)
    assert [x(v) for v in (0.01, 0.1, 1.0, 10.0)] == [0.0, 30.0, 60.0, 90.0]
    assert x.ticks(6) == pytest.approx([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
    wide = axis([], 0, 1, log=True, within=[1e-9, 1e9], pad=0.0)
    assert len(wide.ticks(6)) <= 7


def test_a_narrow_logarithmic_axis_still_has_ticks():
    assert len(axis([0.31, 0.35], 0, 1, log=True).ticks()) >= 2


@pytest.mark.parametrize(("values", "log"), [([], False), ([math.nan], False), ([0.0, 1.0], True)])
def test_what_has_no_axis_is_refused(values, log):
    with pytest.raises(ValueError, match="finite"):
        axis(values, 0, 1, log=log)


def test_ticks_are_written_with_a_true_minus_and_without_float_dust():
    x = axis([-1, 1], 0, 1)
    assert [x.text(v) for v in (-0.5, 3 * 0.1, 0.0)] == ["−0.5", "0.3", "0"]
    assert axis([0, 1], 0, 1, percent=True).text(-0.25) == "−25 %"
    assert [x.text(v) for v in (150_000.0, -20_000.0, 1_000.0, 3e9)] == ["150,000", "−20,000", "1000", "3e+09"]


@pytest.mark.parametrize(
    ("text", "room", "expected"),
    [("short", 10, "short"), ("abcdefghij", 10, "abcdefghij"), ("abcdefghijk", 10, "abcde…hijk"), ("ab", 1, "…")],
)
def test_long_labels_lose_their_middle(text, room, expected):
    assert fit(text, room, size=1.0) == expected


def test_wide_letters_take_two_columns():
    assert columns("数学ab") == 6
    assert columns(fit("数学数学数学数学", 7, size=1.0)) <= 7


def test_a_row_label_keeps_its_whole_name_as_a_tooltip():
    found = row_label(10, 20, "<" + "x" * 50 + ">", 70)
    assert "<title>&lt;" + "x" * 50 + "&gt;</title>" in found and found.count("x" * 50) == 1


def test_whole_numbers_and_spelled_values():
    x = axis([], 0, 100, whole=True, spelled=lambda value: f"layer {value:g}", within=[0.0, 2.0])
    assert x.ticks(6) == [0.0, 1.0, 2.0] and x.text(1.0) == "layer 1"
    assert axis([0.3, 0.6], 0, 1, whole=True).ticks() == [1]
