"""The verdicts that must come out, and results as plain data."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest

from rlmerge_lab.scaling import registry
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


def test_plain_data():
    @dataclass
    class Inner:
        value: float

    assert registry.plain({1: (Inner(math.nan), [Inner(2.0)], "x")}) == {"1": [{"value": None}, [{"value": 2.0}], "x"]}
