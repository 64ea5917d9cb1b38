"""Tables show the paper's numbers beside ours."""

import pytest

from rlmerge_lab.scaling.registry import STUDIES
from rlmerge_lab.scaling.studies import law
from rlmerge_lab.scaling.studies.law import Measured
from rlmerge_lab.scaling.tables.law import tables as law_tables

EXPECTED = {
    "sparsity": {"table-1": 10, "table-1-fed": 10},
    "law": {"law-fits": 9, "law-intervals": 2, "law-published": 5},
    "merge": {"table-2-80": 6, "table-2-90": 6, "table-2-95": 6},
    "anatomy": {"table-3": 7, "figure-4-trends": 2},
    "agents": {"figure-5": 10},
    "memory": {"table-4": 5, "table-4-models": 10},
}


@pytest.mark.parametrize("name", STUDIES)
def test_rows_of_every_table(outcomes, name):
    assert {table.name: len(table.rows) for table in outcomes[name].tables} == EXPECTED[name]


def test_table_1_holds_the_printed_row_and_ours(outcomes):
    row = dict(zip(outcomes["sparsity"].tables[0].columns, outcomes["sparsity"].tables[0].rows[0], strict=True))
    assert row["L0 paper"] == "0.9139 ± 0.0224" and row["kurtosis paper"] == "793"
    assert row["L0 ours"] != row["L0 paper"]


def test_table_2_leaves_the_papers_cells_empty_for_methods_it_lacks(outcomes):
    rows = {row[0]: row for row in outcomes["merge"].tables[1].rows}
    assert rows["RAM"][1] == "1.0000" and rows["RAM, strict mask"][1] == ""


def test_the_users_checkpoints_stand_beside_the_published():
    study = law.run(measured=[Measured("mine", 7.6, 0.72), Measured("big", 32, 0.8)], draws=2)
    fits, _, published = law_tables(study)
    assert fits.rows[-1][0] == "measured"
    assert published.rows[-2] == ("mine (yours, 7.6B)", "72.0 %", "97.4 %")
