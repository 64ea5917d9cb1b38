"""The laboratory imports the product; nothing of the product knows the laboratory."""

import ast
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import rlmerge
import rlmerge_lab

PRODUCT = Path(rlmerge.__file__).parent
LABORATORY = Path(rlmerge_lab.__file__).parent


def imported(path):
    """(line, top-level package) of every absolute import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def named(path):
    """Lines whose strings name the laboratory, as ``import_module`` and entry points would."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "rlmerge_lab" in node.value:
            yield node.lineno


def test_the_product_never_imports_the_laboratory():
    files = sorted(PRODUCT.rglob("*.py"))
    assert len(files) > 100
    wrong = [f"{path}:{line}" for path in files for line, name in imported(path) if name == "rlmerge_lab"]
    wrong += [f"{path}:{line}" for path in files for line in named(path)]
    assert wrong == []


def test_the_laboratory_does_import_the_product():
    assert any(name == "rlmerge" for path in LABORATORY.rglob("*.py") for _, name in imported(path))


@pytest.mark.parametrize("verb", ["lab", "scaling"])
def test_its_verbs_are_found_by_their_entry_points(verb):
    (point,) = entry_points(group="rlmerge.commands", name=verb)
    assert point.load()().get_short_help_str()
