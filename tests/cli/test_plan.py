import json

FLAGS = ["--method", "ties", "--base", "base", "math", "code"]


def test_a_plan_says_what_it_would_do_and_writes_nothing(models, rlmerge):
    before = sorted(models.rglob("*"))
    done = rlmerge("plan", *FLAGS, "-o", "out")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    # 20 float32 entries: three models of 80 bytes are read, one is written behind its header
    assert {"method ties (exact)", "base base", "experts math", "code", "output out", "to read 240 B"} <= set(lines)
    assert sorted(models.rglob("*")) == before


def test_json_and_no_output_directory(models, rlmerge):
    plan = json.loads(rlmerge("plan", *FLAGS, "--format", "json").stdout)
    assert (plan["method"], plan["bytes_read"], plan["tensors"], plan["out"]) == ("ties", 240, 2, None)


def test_mismatched_models_are_exit_2(models, rlmerge):
    (models / "recipe.yaml").write_text("merge_method: ties\nbase_model: base\nmodels: [math, nowhere]\n")
    done = rlmerge("plan", "recipe.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere" in done.stderr
