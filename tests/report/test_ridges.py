from xml.etree import ElementTree

from rlmerge.report.ridges import Histogram, ridge_plot


def bars(chart):
    return [e for e in ElementTree.fromstring(chart).iter() if e.get("class") == "fill" and e.tag.endswith("rect")]


def test_bars_are_densities_on_one_scale():
    """Half the outputs in a bin twice as wide stand half as high, and totals do not matter."""
    first = Histogram("a", 0, [0, 10, 30], [5, 5])
    second = Histogram("b", 1, [0, 10, 30], [500, 500], middle=10.0)
    chart = ridge_plot("T", "D", [first, second], x_label="tokens")
    heights = [float(bar.get("height")) for bar in bars(chart)]
    assert heights == [38.0, 19.0, 38.0, 19.0]
    assert [bar.get("data-tip") for bar in bars(chart)][1] == "a, 10 to 30: 50.0 %"
    assert 'data-tip="b, median 10"' in chart


def test_an_empty_histogram_is_left_out():
    empty = Histogram("none", 0, [0, 1], [0])
    assert "none" not in ridge_plot("T", "D", [empty, Histogram("b", 1, [0, 1], [3])], x_label="x")
    assert "nothing to draw" in ridge_plot("T", "D", [empty, Histogram("cut", 0, [0], [1])], x_label="x")
