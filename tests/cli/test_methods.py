import json

import pytest

from rlmerge import methods
from rlmerge.cli.methods import method_text, methods_text


def test_the_table_names_every_method_with_its_status(rlmerge):
    done = rlmerge("methods")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert {(row[0], row[1]) for row in rows if len(row) > 2} >= {(n, methods.get(n).status) for n in methods.names()}
    heads = [line.strip() for line in done.stdout.splitlines() if "looking at" in line]
    assert heads == [f"looking at {words}:" for words in methods.grouped()]


def test_one_method_with_formula_parameters_and_presets(rlmerge):
    done = rlmerge("methods", "ram_plus")
    assert done.returncode == 0
    for part in ("ram_plus (exact)", "2601.13572", "def ram_formula(", "epsilon", "at least 0", "- ramplus_tl:"):
        assert part in done.stdout


def test_json_carries_the_same_facts(rlmerge):
    sheet = json.loads(rlmerge("methods", "dare_ties", "--format", "json").stdout)
    rescale = next(p for p in sheet["parameters"] if p["name"] == "rescale")
    assert (rescale["default"], rescale["mergekit"], rescale["choices"]) == ("inverse", "l1", ["inverse", "l1", "none"])
    assert "def dare_ties_formula" in sheet["formula"]
    listed = json.loads(rlmerge("methods", "--format", "json").stdout)["methods"]
    assert [method["name"] for method in listed] == [m.name for group in methods.grouped().values() for m in group]
    assert {method["name"] for method in listed} == set(methods.names())
    assert next(m["looks_at"] for m in listed if m["name"] == "ties") == "signs at a coordinate"


def test_a_mistyped_name(rlmerge):
    done = rlmerge("methods", "tiess")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'ties'?" in done.stderr


def test_a_formula_without_source_is_shown_without():
    from rlmerge.cli.methods import _source

    made = {}
    exec("def formula(xp, base, tau): return base", made)
    assert _source(methods.Method("m", made["formula"], "s", "p", "exact")) is None


PLAIN = {"width": 100, "color": False}


def parameter(**changes):
    return {
        "name": "density",
        "default": 0.2,
        "per": "expert",
        "choices": [],
        "low": None,
        "high": None,
        "open_low": False,
        "help": "Share kept.",
        "mergekit": None,
    } | changes


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "0.2 any number"),
        ({"low": 0}, "0.2 at least 0"),
        ({"low": 0, "open_low": True}, "0.2 above 0"),
        ({"low": 0, "high": 1, "open_low": True}, "0.2 above 0 to 1"),
        ({"low": 0, "high": 1}, "0.2 0 to 1"),
        ({"high": 1}, "0.2 up to 1"),
        ({"default": None}, "required any number"),
        ({"default": True}, "true true, false"),
        ({"default": "l1", "choices": ["l1", "none"], "mergekit": "none"}, "l1 (compat: none) l1, none"),
    ],
)
def test_a_parameter_shows_its_default_and_what_it_accepts(changes, shown):
    sheet = {
        "name": "m",
        "status": "exact",
        "summary": "S.",
        "paper": "P",
        "base": "required",
        "experts": {"min": 1, "max": 1},
        "parameters": [parameter(**changes)],
        "notes": [],
        "variants": [],
        "formula": None,
    }
    lines = method_text(sheet, **PLAIN).splitlines()
    assert lines[2] == "base required; experts: 1"
    assert " ".join(lines[5].split()) == f"density {shown} expert Share kept."


def test_methods_text_is_a_line_each_under_what_methods_look_at():
    rows = [("ram", "coordinates"), ("tsv", "subspaces"), ("iso_c", "subspaces")]
    listed = [{"name": name, "status": "exact", "looks_at": group, "summary": "Keeps."} for name, group in rows]
    lines = [line.split() for line in methods_text({"methods": listed}, **PLAIN).splitlines()]
    keeps = [[name, "exact", "Keeps."] for name, _ in rows]
    heads = [["looking", "at", f"{group}:"] for group in ("coordinates", "subspaces")]
    assert [line for line in lines[1:] if line][:5] == [heads[0], keeps[0], heads[1], *keeps[1:]]
