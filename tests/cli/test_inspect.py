import json


def test_a_summary_and_both_files(rlmerge, models):
    done = rlmerge("inspect", "--base", "base", "math", "code", "-o", "r.html", "--json", "r.json", "--spectral")
    assert done.returncode == 0, done.stderr
    assert "2 experts of base" in done.stdout and "merge_method" in done.stdout
    assert (models / "r.html").read_text().startswith("<!doctype html>")
    data = json.loads((models / "r.json").read_text())
    assert data["schema"] == "rlmerge.inspect/1"
    assert data["exactly"] == [1.0, 0.0]
    assert data["spectra"][0]["tensor"] == "model.layers.0.w"


def test_json_on_stdout_is_one_object(rlmerge, models):
    done = rlmerge("inspect", "--base", "base", "math", "--format", "json", "--quiet")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["experts"][0]["figures"]["norm"]["value"] == 2.0


def test_the_recommended_recipe_runs(rlmerge, models):
    done = rlmerge("inspect", "--base", "base", "math", "code", "--format", "json", "--quiet")
    (models / "recipe.yaml").write_text(json.loads(done.stdout)["recommendation"]["yaml"])
    merged = rlmerge("merge", "recipe.yaml", "-o", "out")
    assert merged.returncode == 0, merged.stderr


def test_against_a_recipe_and_a_lock_file(rlmerge, models):
    (models / "r.yaml").write_text(
        "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: math}, {model: code}]\n"
        "parameters: {weight: 0.5}\n"
    )
    assert rlmerge("merge", "r.yaml", "-o", "out").returncode == 0
    for recipe in ("r.yaml", "out/rlmerge.lock.yaml"):
        done = rlmerge("inspect", "out", "--against", recipe, "--format", "json", "--quiet")
        assert done.returncode == 0, done.stderr
        after = json.loads(done.stdout)["after"]
        assert [o["realised"] for o in after["experts"]] == [0.5, 0.5]
        assert [o["requested"] for o in after["experts"]] == [0.5, 0.5]
        assert after["survived"] == 1.0


def test_requests_that_make_no_sense(rlmerge, models):
    for arguments, words in (
        (["inspect", "math"], "--base MODEL"),
        (["inspect"], "Missing argument"),
        (["inspect", "--base", "base", "nowhere"], "no such directory"),
        (["inspect", "--base", "base", "math", "-o", "missing/r.html"], "its directory does not exist"),
        (["inspect", "a", "b", "--against", "r.yaml"], "no such recipe file"),
    ):
        done = rlmerge(*arguments)
        assert done.returncode == 2, done.stdout
        assert words in done.stderr
