"""The verdicts that must come out, the tables and pictures that show them, and results as plain data."""

from __future__ import annotations

import json
import re

import pytest

from rlmerge_lab.scaling import STUDIES
from rlmerge_lab.scaling.verdict import Verdict

Y, K, N = Verdict.REPRODUCED, Verdict.IN_KIND, Verdict.NOT_REPRODUCED
EXPECTED = {
    "sparsity": [Y, K, K, K, K, N],
    "law": [Y, Y, Y, Y, Y, Y, N, N, N, N],
    "merge": [Y, Y, K, Y, K, K, N, N, N],
    "anatomy": [Y, Y, Y, N, K, K, N],
    "agents": [K, K, K, K],
    "memory": [Y, Y, N, N, K],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_verdicts(outcomes, name):
    claims = outcomes[name].claims
    assert [claim.verdict for claim in claims] == EXPECTED[name], [claim.statement for claim in claims]
    assert all(claim.reason for claim in claims)
    assert sum(outcomes[name].count(verdict) for verdict in Verdict) == len(claims)


@pytest.mark.parametrize("name", EXPECTED)
def test_outcomes_are_strict_json(outcomes, name):
    data = json.loads(json.dumps(outcomes[name].to_dict(), allow_nan=False))
    assert data["study"] == name and data["claims"] and data["result"]


TABLES = {
    "sparsity": {"table-1": 10, "table-1-fed": 10},
    "law": {"law-fits": 9, "law-intervals": 2, "law-published": 5},
    "merge": {"table-2-80": 6, "table-2-90": 6, "table-2-95": 6},
    "anatomy": {"table-3": 7, "figure-4-trends": 2},
    "agents": {"figure-5": 10},
    "memory": {"table-4": 5, "table-4-models": 10},
}
PICTURES = {
    "sparsity": ["figure-1a", "figure-1b"],
    "law": ["law"],
    "merge": ["figure-2a", "figure-2b", "figure-3a", "figure-3b"],
    "anatomy": ["figure-4a", "figure-4b"],
    "agents": ["figure-5a", "figure-5b"],
    "memory": ["figure-6"],
}


@pytest.mark.parametrize("name", STUDIES)
def test_rows_of_every_table(outcomes, name):
    assert {table.name: len(table.rows) for table in outcomes[name].tables} == TABLES[name]


@pytest.mark.parametrize("name", STUDIES)
def test_pictures_say_in_words_what_they_show(outcomes, name):
    pictures = outcomes[name].pictures
    assert [picture.key for picture in pictures] == PICTURES[name]
    for picture in pictures:
        assert len(picture.note) > 50 and picture.note in picture.svg.replace("&#x27;", "'").replace("&amp;", "&")
        assert "nothing to draw" not in picture.svg and len(picture.sheet.rows) > 3
        assert all(re.search(r"\d|–", cell) for row in picture.sheet.rows for cell in row[1:])
