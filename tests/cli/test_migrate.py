import json

import pytest

RECIPE = """merge_method: dare_linear
base_model: base
models:
  - model: a
    parameters: {weight: 0.5}
int8_mask: true
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yml"
    path.write_text(RECIPE)
    return path


def test_lines_first_then_the_recipe(rlmerge, recipe):
    done = rlmerge("migrate", recipe)
    assert (done.returncode, done.stderr) == (0, "")
    lines, explicit = done.stdout.split("\n\n")
    assert "    2  =  base_model: base\n" in lines
    assert "    6  -  int8_mask: true\n            unknown key 'int8_mask'" in lines
    assert explicit.startswith("merge_method: dare_linear\n")
    assert "rescale: inverse" in explicit


def test_written_to_a_file_that_runs(rlmerge, recipe, tmp_path):
    new = tmp_path / "new.yml"
    assert rlmerge("migrate", recipe, "-o", new).returncode == 0
    assert rlmerge("migrate", new, "-o", tmp_path / "again.yml").returncode == 0
    assert new.read_text() == (tmp_path / "again.yml").read_text()


def test_a_file_is_replaced_only_when_asked(rlmerge, recipe, tmp_path):
    done = rlmerge("migrate", recipe, "-o", recipe)
    assert done.returncode == 2
    assert "exists; --force replaces it" in done.stderr
    assert recipe.read_text() == RECIPE
    assert rlmerge("migrate", recipe, "-o", recipe, "--force").returncode == 0
    assert recipe.read_text() != RECIPE
    done = rlmerge("migrate", recipe, "-o", tmp_path / "no" / "where.yml")
    assert (done.returncode, "cannot write" in done.stderr) == (2, True)


def test_json(rlmerge, recipe):
    found = json.loads(rlmerge("migrate", recipe, "--format", "json", "--compat").stdout)
    assert found["lines"][0]["number"] == 1
    assert {line["verdict"] for line in found["lines"]} <= {"same", "differs", "no effect"}
    assert "rescale: l1" in found["text"]
    assert found["out"] is None


def test_errors_are_those_of_reading(rlmerge, recipe):
    recipe.write_text(RECIPE.replace("base_model", "base_modle"))
    done = rlmerge("migrate", recipe)
    assert done.returncode == 2
    assert "Did you mean 'base_model'?" in done.stderr
