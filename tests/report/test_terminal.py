import pytest

from rlmerge.report.terminal import (
    duration_text,
    merge_text,
    method_text,
    methods_text,
    plan_text,
    size_text,
    verify_text,
)

PLAIN = {"width": 100, "color": False}

EXPERT = {
    "name": "org/math",
    "changed": 1000,
    "survived": 971,
    "erased": 20,
    "unique": 600,
    "requested": 1.0,
    "realised": 0.98,
}
NOTHING = EXPERT | {"name": "[b]x", "changed": 0, "survived": 0, "erased": 0, "unique": 0}
NOTHING |= {"requested": None, "realised": None}

MERGE = {
    "out": "merged",
    "method": "ram",
    "status": "exact",
    "seconds": 2.0,
    "bytes_read": 3_000_000_000,
    "bytes_written": 1_000_000_000,
    "peak_memory": 512_000_000,
    "tensors": 290,
    "resumed": 0,
    "experts": [EXPERT, NOTHING],
    "details": [],
    "warnings": ["rounding erased 29 % of math's changes"],
}


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_980_000_000, "1.98 GB"),
        (999_600, "1 MB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_size_text(nbytes, text):
    assert size_text(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.421, "0.42 s"), (12.34, "12.3 s"), (59.97, "1:00"), (65, "1:05"), (7389, "2:03:09")],
)
def test_duration_text(seconds, text):
    assert duration_text(seconds) == text


def test_merge_text_is_a_row_per_expert_then_cost_then_warnings():
    assert merge_text(MERGE, **PLAIN).splitlines() == [
        "ram (exact) → merged",
        "",
        "expert    changed  unique  survived  erased    coefficient",
        "org/math    1,000     600    97.1 %   2.0 %  1.000 → 0.980",
        "[b]x            0       0         -       -          - → -",
        "",
        "290 tensors, 3 GB read, 1 GB written in 2.00 s (2 GB/s), peak memory 512 MB",
        "",
        "warning: rounding erased 29 % of math's changes",
    ]


def test_what_the_method_measured_stands_between_survival_and_cost():
    bound = {"label": "bound", "value": 0.00123456, "range": (0.001, 0.25)}
    text = merge_text(MERGE | {"details": [bound, {"label": "[b]won", "value": None, "range": None}]}, **PLAIN)
    assert text.splitlines()[6:9] == [
        "measured by the method     model  tensors from    to",
        "bound                   0.001235         0.001  0.25",
        "[b]won                         -             -     -",
    ]


def test_a_resumed_merge_without_a_base():
    result = MERGE | {"experts": [], "resumed": 12, "peak_memory": None, "seconds": 0.0, "warnings": []}
    assert merge_text(result, **PLAIN).splitlines() == [
        "ram (exact) → merged",
        "",
        "290 tensors (12 from before), 3 GB read, 1 GB written in 0.00 s",
    ]


def test_narrow_tables_fold_and_lose_nothing():
    text = merge_text(MERGE | {"experts": [EXPERT | {"name": "a" * 60}]}, width=60, color=False)
    assert text.count("a") >= 60
    assert max(map(len, text.split("290 tensors")[0].splitlines())) <= 60


def test_colour_only_where_asked():
    assert "\x1b[" in merge_text(MERGE, width=100, color=True)
    assert "\x1b[" not in merge_text(MERGE, **PLAIN)


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


def test_verify_text():
    result = {"out": "merged", "ok": True, "problems": (), "files": 3, "tensors": 12, "bytes": 4_000}
    assert verify_text(result, **PLAIN) == "merged: ok (3 files, 12 tensors, 4 kB)"
    bad = verify_text(result | {"ok": False, "problems": ("a.bin is extra",)}, **PLAIN)
    assert bad.splitlines() == ["merged: 1 problem(s) in 3 files, 12 tensors, 4 kB", "", "- a.bin is extra"]


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
