import math

from rlmerge.report.tables import amount, interval_text, matrix, number, plot, share, table


def test_intervals():
    assert interval_text(0.5123, 0.48, 0.54) == "0.512 [0.48, 0.54]"
    assert interval_text(-0.125, -0.25, 0.0, percent=True) == "−12.5 % [−25.0 %, 0.0 %]"
    assert (interval_text(0.5, None, 0.6), interval_text(None, None, None)) == ("0.5", "–")
    assert interval_text(0.5, math.nan, math.nan) == interval_text(0.5, 0.4, math.inf) == "0.5"
    assert (amount(math.nan), amount(-1e-9)) == ("–", "−1e−09")


def test_numbers():
    assert (share(0.12345), share(None), number(0.00012345), number(None)) == ("12.3 %", "–", "0.000123", "–")
    assert {show(x) for show in (share, number, amount) for x in (math.nan, math.inf, -math.inf)} == {"–"}


def test_cells_are_text():
    found = table("<c>", ["a", "<b>"], [["<i>", "&"]])
    assert "&lt;c&gt;" in found and '<th scope="row">&lt;i&gt;</th><td>&amp;</td>' in found


def test_matrix_has_values_beside_their_null_and_gaps():
    values = {"ab": ("0.5", "chance 0.1", 0.5), "ac": ("-0.2", "null", -1.0)}
    found = matrix("T", "note", ["a", "b", "c"], lambda x, y: values.get("".join(sorted((x, y)))))
    assert found.count("chance 0.1") == 2
    assert found.count("<td>·</td>") == 3 and found.count("<td>–</td>") == 2
    assert "--weight: 0.30" in found and "--tone: var(--cool)" in found


def test_a_matrix_of_rows_and_columns_asks_for_every_cell():
    found = matrix("T", "note", ["a", "b"], lambda row, column: (row + column, "", 0.0), ["a", "c", "<d>"])
    assert found.count("<td style") == 6 and "<td>·</td>" not in found
    assert ">aa<" in found and ">bc<" in found and '<th scope="col">&lt;d&gt;</th>' in found


def test_a_plot_brings_its_numbers():
    found = plot("T", "note", "<svg/>", "<table/>")
    assert found.index("<svg/>") < found.index("Show the numbers") < found.index("<table/>")
