import math
from xml.etree import ElementTree

from rlmerge.report.heat import heat_map


def elements(chart, kind):
    return [e for e in ElementTree.fromstring(chart).iter() if kind in (e.get("class") or "").split()]


def drawn(values, **options):
    xs, ys = list(range(len(values))), list(range(len(values[0])))
    return heat_map("T", "D", xs, ys, values, x_label="α", y_label="β", unit="score", **options)


def test_every_grid_point_says_its_value():
    chart = drawn([[0.0, 0.5], [0.25, 1.0]], percent=True)
    assert [cell.get("data-tip") for cell in elements(chart, "cell")] == [
        "α 0, β 0: 0.0 %", "α 0, β 1: 50.0 %", "α 1, β 0: 25.0 %", "α 1, β 1: 100.0 %",
    ]  # fmt: skip
    boxes = [[float(cell.get(key)) for key in ("x", "y", "width", "height")] for cell in elements(chart, "cell")]
    assert boxes[1][1] < boxes[0][1] and boxes[2][0] > boxes[0][0]  # β upwards, α to the right


def test_bands_rise_from_the_lowest_value_in_round_steps():
    chart = drawn([[0.013, 0.5], [0.25, 0.987]])
    bands = elements(chart, "iso")
    assert [band.get("class") for band in (bands[0], bands[-1])] == ["iso h0", "iso h9"]
    texts = [e.text for e in ElementTree.fromstring(chart).iter() if e.get("text-anchor") == "start"]
    assert texts == ["0.01", "0.2", "0.4", "0.6", "0.8", "0.99"]


def test_the_lowest_band_covers_everything_that_is_known():
    whole, holed = drawn([[1.0] * 3] * 3), drawn([[1.0, None, 2.0], [1.0, math.nan, 1.0], [1.0, 1.0, math.inf]])
    assert elements(whole, "iso")[0].get("d").count("M") == 1
    assert len(elements(holed, "cell")) == 6


def test_places_are_named():
    chart = drawn([[0.0, 1.0], [1.0, 0.0]], marks=[(0, 0, "<θ>"), (1, 0, "θ + τ")])
    assert [place.get("data-tip") for place in elements(chart, "place")] == ["<θ>", "θ + τ"]
    assert [label.text for label in elements(chart, "on")] == ["<θ>", "θ + τ"]


def test_nothing_to_draw_is_said():
    assert "nothing to draw" in drawn([[None, math.nan], [None, None]])
    assert "nothing to draw" in drawn([[1.0, 2.0]])


def test_pictures_can_share_their_colours():
    """0.5 to 0.6 on a scale from 0 to 1: levels 0, 0.2, 0.4 lie below it, and it reaches 0.6 in a corner."""
    chart = drawn([[0.5, 0.5], [0.5, 0.6]], within=[0.0, 1.0])
    shades = [band.get("class") for band in elements(chart, "iso")]
    assert shades == ["iso h0", "iso h2", "iso h4"]


def test_the_ends_of_the_bar_are_told_from_the_levels_beside_them():
    chart = drawn([[1.5951, 1.6], [1.7, 2.404]])
    texts = [e.text for e in ElementTree.fromstring(chart).iter() if e.get("text-anchor") == "start"]
    assert texts[:2] == ["1.595", "1.6"] and texts[-2:] == ["2.4", "2.404"]
