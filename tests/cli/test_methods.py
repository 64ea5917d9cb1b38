import json

from rlmerge import methods


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
