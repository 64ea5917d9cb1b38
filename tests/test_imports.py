"""The floors of the house, and what may not be imported by whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "rlmerge"

FLOORS = (
    {"addresses", "errors", "extras", "frozen", "jsondata", "progress", "student", "text", "_version"},
    {"kernels"},
    {"options"},
    {"checkpoint"},
    {"methods"},
    {"geometry"},
    {"report"},
    {"recipe"},
    {"adapters"},
    {"merging"},
    {"transplant"},
    {"inspection"},
    {"language"},
    {"moe"},
    {"sensitivity"},
    {"evaluate"},
    {"calibration"},
    {"search"},
    {"api"},
    {"cli"},
)
"""Rooms and files from the ground up, one room a floor; each may import only what is below it."""

TORCH_WINGS = {"language", "sensitivity", "evaluate", "calibration", "search", "merging/on_torch.py"}
HEAVY = {"torch", "transformers", "scipy", "matplotlib", "huggingface_hub", "datasets", "pandas", "jax", "optuna"}
HEAVY |= {"obstore", "ray"}


def modules():
    return sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem != "__init__")


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def floor_of(room):
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), None)


def imports(tree, path, *, lazy=True):
    """(line, absolute module name) of every import; with ``lazy`` those inside functions and type checks too."""
    package = ["rlmerge", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(tree) if lazy else _at_import(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*parent, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{name}.{alias.name}"


def _at_import(tree):
    """The nodes that run when the module is imported."""
    for node in tree.body if hasattr(tree, "body") else []:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from _at_import(node)


def test_every_room_has_a_floor():
    assert {room_of(path) for path in modules()} <= set().union(*FLOORS)


def test_no_room_imports_a_higher_one():
    wrong = []
    for path in modules():
        own = floor_of(room_of(path))
        for line, name in imports(ast.parse(path.read_text()), path):
            parts = name.split(".")
            if parts[0] != "rlmerge" or len(parts) < 2 or floor_of(parts[1]) is None:
                continue
            relative = path.relative_to(ROOT).as_posix()
            if floor_of(parts[1]) > own:
                wrong.append(f"{relative}:{line} imports {name}")
    assert wrong == []


APART = {
    "kernels": {"errors"},
    "methods": {"checkpoint"},
    "geometry": {"checkpoint", "methods"},
    "report": {"checkpoint", "methods", "geometry"},
    "recipe": {"checkpoint", "geometry", "report"},
    "merging": {"geometry", "report"},
}
"""Rooms that must not know each other, although the floors would allow it."""


@pytest.mark.parametrize("room", APART)
def test_rooms_that_do_not_know_each_other(room):
    """Methods and figures never open a file, and reports see results alone, whatever the floors allow."""
    others = APART[room]
    found = [
        f"{path.name}:{line} imports {name}"
        for path in modules()
        if room_of(path) == room
        for line, name in imports(ast.parse(path.read_text()), path)
        if name.startswith("rlmerge.") and name.split(".")[1] in others
    ]
    assert found == []


def test_heavy_libraries_are_imported_late_or_in_their_wings():
    found = []
    for path in modules():
        relative = path.relative_to(ROOT).as_posix()
        if relative in TORCH_WINGS or room_of(path) in TORCH_WINGS:
            continue
        for line, name in imports(ast.parse(path.read_text()), path, lazy=False):
            if name.split(".")[0] in HEAVY:
                found.append(f"{relative}:{line} imports {name}")
    assert found == []


def test_the_check_sees_imports():
    """Relative and lazy ones are found; those of type checkers run never."""
    path = ROOT / "merging" / "example.py"
    tree = ast.parse(
        "from . import cache\nfrom ..report import card\ndef f():\n    import torch\n"
        "if TYPE_CHECKING:\n    import scipy\nclass C:\n    import jax\n"
    )
    names = {"rlmerge.merging.cache", "rlmerge.report.card", "torch", "scipy", "jax"}
    assert {name for _, name in imports(tree, path)} == names
    assert {name for _, name in imports(tree, path, lazy=False)} == names - {"torch", "scipy"}


def imported_by(code):
    """Top-level modules that a fresh interpreter holds after ``code``."""
    script = f"{code}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_importing_rlmerge_is_light():
    assert not {"numpy", "llvmlite", "torch", "yaml", "rich", "click"} & imported_by("import rlmerge")


@pytest.mark.parametrize("arguments", [["--help"], ["merge", "--help"]])
def test_help_is_light(arguments):
    code = f"from rlmerge.cli.app import run\nrun({arguments})"
    assert not {"numpy", "llvmlite", "torch", "yaml"} & imported_by(code)


def test_a_merge_imports_none_of_the_heavy_libraries(tmp_path):
    code = f"""
import numpy as np, os
from rlmerge.cli.app import run
sys_path = {str(tmp_path)!r}
os.chdir(sys_path)
from rlmerge.checkpoint import OutputTensor, PartialDirectory, plan_shards
from rlmerge.kernels.dtypes import FLOAT32
for name in ("base", "one"):
    shards = plan_shards([OutputTensor("w", FLOAT32, (9,))], 1000)
    with PartialDirectory(name, "plan") as partial:
        writer = partial.shard_writer(shards[0])
        writer.write("w", np.arange(9, dtype=np.float32) * (1 + (name == "one")))
        writer.finish_tensor("w", {{}})
        partial.write_file("config.json", b"{{}}")
        partial.seal(shards)
assert run(["merge", "--method", "ram", "--base", "base", "one", "-o", "out", "--no-cache"]) == 0
"""
    assert not HEAVY & imported_by(code)
    assert (tmp_path / "out" / "MANIFEST.json").exists()
