import json
import math

from rlmerge.inspection import SCHEMA, Inspection
from rlmerge.inspection.recommend import recommend
from rlmerge.inspection.rules import judge
from support.evidence import evidence


def inspection() -> Inspection:
    found = evidence(conflict=math.nan)
    return Inspection(
        "1", found.base, found.experts, found.pairs, (0.5, 0.5), (), (), (), found.rows, found.forecasts, (), (),
        judge(found), recommend(found), None, 2.0, 1.0, 100,
    )  # fmt: skip


def test_json_has_a_schema_definitions_and_no_nan():
    data = json.loads(inspection().to_json())
    assert data["schema"] == SCHEMA == "rlmerge.inspect/1"
    pair = data["pairs"][0]["figures"]
    assert pair["conflict_share"]["value"] is None
    assert pair["jaccard"] == {"value": 0.2, "dtype": "bfloat16", "status": "exact", "null": 0.1}
    for figures in (data["experts"][0]["figures"], pair):
        assert set(figures) <= set(data["definitions"])
    assert data["experts"][0]["magnitudes"] == {"-10": 20}


def test_html_is_the_report_of_the_same_data():
    found = inspection()
    assert found.to_html().startswith("<!doctype html>") and "Jaccard" in found.to_html()


def test_pairs_by_name():
    found = inspection()
    assert found.names == ("e0", "e1")
    assert found.pair("e1", "e0") is found.pairs[0]
    assert found.pair("e0", "e0") is None
