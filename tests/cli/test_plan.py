import json

from rlmerge.cli.plan import plan_text

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


PLAIN = {"width": 100, "color": False}
PLAN = {
    "method": "ties",
    "status": "exact",
    "base": "org/base",
    "experts": ["org/a", "org/b"],
    "inputs": {},
    "out": None,
    "tensors": 1290,
    "merged_tensors": 1200,
    "shards": ["model.safetensors"],
    "dtypes": ["bfloat16", "int64"],
    "statistics": [["threshold"], ["overlap", "active_count"]],
    "bytes_read": 6_000_000_000,
    "bytes_written": 2_000_000_000,
    "peak_memory": 512_000_000,
    "free_disk": None,
    "warnings": ["two models are one"],
}


def test_plan_text_is_a_line_each_then_warnings():
    lines = [" ".join(line.split()) for line in plan_text(PLAN, **PLAIN).splitlines()]
    assert lines == [
        "method ties (exact)",
        "base org/base",
        "experts org/a",
        "org/b",
        "output not given",
        "tensors 1,290 (1,200 merged) in 1 shard(s)",
        "element types bfloat16, int64",
        "passes over the inputs 3 (for threshold, then overlap and active_count, then the merge)",
        "to read 6 GB",
        "to write 2 GB",
        "peak memory 512 MB",
        "free disk unknown",
        "",
        "warning: two models are one",
    ]


def test_a_plan_names_further_inputs_below_the_experts():
    text = plan_text(PLAN | {"inputs": {"sensitivity": ["f/a", "f/b"]}}, **PLAIN)
    assert [" ".join(line.split()) for line in text.splitlines()][3:6] == ["org/b", "sensitivity f/a", "f/b"]


def test_a_plan_without_base_or_statistics():
    text = plan_text(PLAN | {"base": None, "statistics": [], "free_disk": 10**9}, **PLAIN)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert {"base none", "passes over the inputs 1", "free disk 1 GB"} <= set(lines)
