"""An outcome on a terminal, wide and narrow."""

import io

from rich.console import Console

from rlmerge_lab.scaling.render.terminal import column_parts, show, tally
from rlmerge_lab.scaling.table import Table


def text(outcome, width):
    out = io.StringIO()
    show(outcome, Console(file=out, width=width))
    return out.getvalue()


def test_the_papers_number_ours_verdict_and_reason(outcomes):
    shown = text(outcomes["memory"], 120)
    assert "✗ not reproduced  270× at 405B  §3.6" in shown
    assert "paper 270×   ours 180×" in shown
    assert "The text contradicts its own table: 3240 / 18." in shown
    assert "Llama-3.1-405B" in shown


def test_seed_and_tally_close_the_study(outcomes):
    last = text(outcomes["law"], 120).strip().splitlines()[-1]
    assert last.startswith("6 reproduced, 4 not reproduced; seed 0;")
    assert tally(outcomes["agents"]) == "4 reproduced in kind"


def test_a_narrow_terminal_loses_no_digit(outcomes):
    shown = text(outcomes["sparsity"], 70)
    assert max(map(len, shown.splitlines())) <= 70
    for cell in ("0.9139 ± 0.0224", "0.9940 ± 0.0020", "39019", "1,000,000", "0.99994"):
        assert f" {cell} " in shown


def test_wide_tables_are_cut_between_columns_and_repeat_their_label():
    table = Table("t", "title", ("size", "first column", "b", "c"), (("1B", "12", "1234567", "1"),))
    # Widths 4, 6 (the word "column"), 7 and 1, each with three characters around it, and one line.
    assert column_parts(table, 31) == [[0, 1, 2, 3]]
    assert column_parts(table, 30) == [[0, 1, 2], [0, 3]]
    assert column_parts(table, 5) == [[0, 1], [0, 2], [0, 3]]
