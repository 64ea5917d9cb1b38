"""Recipes and locks that nobody wrote in good faith: each is read, or refused in one error with a line a problem.

Seeded and aware of the structure: whole recipes of every form are taken apart, spoilt in one place or several, and put
together again. `RLMERGE_FUZZ=100000` runs that many cases instead of a few thousand.
"""

import os
import random
import re

import pytest
import yaml

from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe import load_recipes, to_yaml_documents
from rlmerge.recipe.problems import MOST

from .conftest import find

CASES = int(os.environ.get("RLMERGE_FUZZ", "3000"))
CHUNK = 250

SCALARS = [
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, -1e308, float("inf"), float("nan"), 10**30, 2**64, 2**1024,
    10**1200, "", " ", "0.5", "1e999", "true", "null", "~", "*", "a", "b", "base", "union", "first", "a+b", "a@b",
    "a+b+c", "a@b@c", "+", "@", "org/a@v1+org/b@v2", "~nobody/x", "../..", "/", "x" * 300, "x" * 5000, "a\0b",
    "\ud800", "\x1b]0;x\x07", "\u202e", "\u2028", "é", "{{ x }}", "chatml", "chatmll", "linear", "ties", "slerp",
    "mergekit", "bfloat16", "zero", "model_token", "<<", "=", "2024-01-01", "0x10", "1:30", "08", "1_000",
]  # fmt: skip
KEYS = [
    "merge_method", "base_model", "models", "slices", "modules", "parameters", "dtype", "out_dtype",
    "tokenizer_source", "tokenizer", "chat_template", "compat", "name", "model", "layer_range", "sources", "weight",
    "density", "lambda", "normalize", "rescale", "t", "scale", "sensitivity", "filter", "value", "source", "tokens",
    "pad_to_multiple_of", "force", "kind", "token", "token_id", "path", "revision", "lora", "override_architecture",
    "residual_weight", "seed", "x-y", "densty", "modles", "", "<<", "1", "true", "rlmerge_lock", "recipe", "options",
    "inputs", "versions", "rounding", "fingerprint", "k" * 200,
]  # fmt: skip

SEEDS = [
    "merge_method: ties\nbase_model: base\nmodels: [{model: a, parameters: {weight: [0, 1], density: 0.5}}, b]\n"
    "parameters: {lambda: [{filter: mlp, value: [1, 2]}, {value: 3}], normalize: true}\ndtype: bfloat16\n",
    "merge_method: linear\nslices:\n- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [1, 3],"
    " parameters: {weight: 0.3}}]\n- {sources: [{model: a, layer_range: [2, 4]}], parameters: {weight: 2}}\n",
    "merge_method: ties\nbase_model: base\nmodules:\n  text: {slices: [{sources: [{model: base, layer_range: [0, 2]},"
    " {model: a, layer_range: [4, 6]}]}], parameters: {lambda: 2}}\n  vision: {models: [base]}\n",
    "merge_method: slerp\nbase_model: base\nmodels: [{model: {model: {path: a, revision: r}, lora: {path: l}}}]\n"
    "parameters: {t: {filter: mlp, value: 0.5}}\ncompat: mergekit\nchat_template: auto\n",
    "merge_method: dare_linear\nbase_model: base\nmodels: [a]\nparameters: {rescale: l1}\ntokenizer: {source: union,"
    " tokens: {x: {source: a, force: true}, y: {source: {kind: zero}}, z: {source: {kind: model_token, model: a,"
    " token_id: 3}}}, pad_to_multiple_of: 8}\n",
    "merge_method: measured\nbase_model: base\nmodels: [{model: a, sensitivity: s}, {model: b, sensitivity: u}]\n",
    "name: first\nmerge_method: linear\nmodels: [a, b]\n---\nname: second\nmerge_method: karcher\nbase_model: base\n"
    "models: [first, c]\n---\nmerge_method: passthrough\nmodels: [second+lora]\n",
    "rlmerge_lock: 1\nrecipe: {merge_method: ties, base_model: base, models: [a, org/b]}\n"
    "options: {seed: 3, dtype: null, rounding: nearest, shard_size: 1000, on_nonfinite: error}\n"
    "inputs: [{model: base, revision: null, fingerprint: f0}, {model: a, fingerprint: f1},"
    " {model: org/b, revision: c, fingerprint: f2}]\nversions: {rlmerge: 0.0.1}\n",
]  # fmt: skip

TEXTS = [
    "!!bool x", "!!int ''", "!!float x", "!!python/name:os.system", "!x y", "&a", "*a", "&a [*a]", "<<: *a", "? [x]",
    "{", "[", "'", '"', "|", ">", "---", "...", "%YAML 9.9", "\t", "\x00", "\ufeff", "\x85", "- ", ": ", "#",
    "0x" + "f" * 4000, "9" * 5000, "1" + ":59" * 3000, "[" * 300, "{a: " * 300, "- " * 300, "\ud800",
]  # fmt: skip


def spots(value, path=()):
    """Every place in a tree, the root's last."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from spots(child, (*path, key))
    yield path


def spoil(rng, tree):
    """One change somewhere in ``tree``; the new tree."""
    path = rng.choice(list(spots(tree)))
    if not path:
        return rng.choice([tree, [tree], {"x-y": tree}, {rng.choice(KEYS): tree}, rng.choice(SCALARS)])
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    last, old = path[-1], parent[path[-1]]
    kind = rng.randrange(8)
    if kind == 0:
        del parent[last]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice(KEYS)] = parent.pop(last)
    elif kind == 2 and isinstance(parent, dict):
        parent[rng.choice(KEYS)] = rng.choice([old, rng.choice(SCALARS)])
    elif kind == 3:
        parent[last] = rng.choice([[old], [old, old], {rng.choice(KEYS): old}, [], {}])
    elif kind == 4 and isinstance(old, list):
        parent[last] = old * rng.choice([0, 2, 3])
    elif kind == 5:
        other = tree
        for key in rng.choice(list(spots(tree))):
            other = other[key]
        parent[last] = yaml.safe_load(yaml.safe_dump(other))
    else:
        parent[last] = rng.choice(SCALARS)
    return tree


def case(number):
    """The text or data of one case."""
    rng = random.Random(number)
    documents = list(yaml.safe_load_all(rng.choice(SEEDS)))
    for _ in range(rng.choice([1, 1, 2, 3, 8])):
        chosen = rng.randrange(len(documents))
        documents[chosen] = spoil(rng, documents[chosen])
    if rng.random() < 0.3:
        return documents if len(documents) > 1 or not isinstance(documents[0], dict) else documents[0]
    try:
        text = yaml.safe_dump_all(documents, default_flow_style=rng.choice([None, True, False]), allow_unicode=True)
    except UnicodeEncodeError:
        text = repr(documents)
    while rng.random() < 0.35:
        at = rng.randrange(len(text) + 1)
        cut = rng.choice([0, 0, 1, 10])
        text = text[:at] + rng.choice(["", rng.choice(TEXTS), rng.choice(KEYS) + ":"]) + text[at + cut :]
    return text + "\n"


def check(source):
    """The recipes of ``source``, or None where it is refused as it should be."""
    try:
        recipes = load_recipes(source, lookup=find)
    except RecipeError as error:
        assert 1 <= len(error.problems) <= MOST + 10
        for problem in error.problems:
            told_before = re.fullmatch(r"and \d+ more problems", problem.what)
            assert told_before or problem.where
            assert len(problem.what) < 500 and problem.what.isprintable(), repr(problem.what)
            if isinstance(source, str) and problem.where and problem.where != "recipe":
                assert re.fullmatch(r"recipe:\d+", problem.where), problem.where
        return None
    except RequestError as error:
        assert len(str(error)) < 500
        return None
    for recipe in recipes:
        use(recipe)
    return recipes


def use(recipe):
    """Everything a plan asks of a recipe."""
    assert all(isinstance(text, str) and "\x1b" not in text for text in recipe.warnings)
    assert recipe.models or not recipe.slices
    recipe.unused_filters(["layers.0.mlp.w"])
    for module, part in recipe.slices:
        recipe.static(module, part)
        assert part.sources or part.base
        lengths = {stop - start for source in part.sources for start, stop in [source.layer_range or (0, 0)]}
        assert len(lengths) <= 1
        names = [f"layers.{index}.mlp.w" for index in range(len(part.sources))]
        try:
            values = recipe.values_at(module, part, output_name="layers.0.mlp.w", source_names=names, position=0.3)
        except RecipeError as error:
            assert "no value of" in str(error)
            continue
        assert set(values) == {parameter.argument for parameter in recipe.method.parameters}


@pytest.mark.parametrize("chunk", range((CASES + CHUNK - 1) // CHUNK))
def test_no_case_escapes(chunk):
    accepted = 0
    for number in range(chunk * CHUNK, min(CASES, (chunk + 1) * CHUNK)):
        source = case(number)
        try:
            recipes = check(source)
        except Exception as error:
            raise AssertionError(f"case {number}: {str(source)[:2000]!r}") from error
        if recipes is not None:
            accepted += 1
            text = to_yaml_documents(recipes)
            again = load_recipes(text, lookup=find)
            assert again == recipes, f"case {number}: {text}"
    assert accepted > CHUNK // 50, "a fuzzer whose cases are all refused at the door tests the door only"


HEAD = "merge_method: ties\nbase_model: base\n"
MEGABYTE = 990_000


def filled(head, line, limit=MEGABYTE):
    lines = []
    size = len(head)
    while size < limit:
        lines.append(line(len(lines)))
        size += len(lines[-1])
    return head + "".join(lines)


LARGE = {
    "comments": filled(HEAD + "models: [a]\n", lambda i: f"# comment {i}\n"),
    "unknown keys": filled(HEAD + "models: [a]\n", lambda i: f"foreign{i}: 1\n"),
    "near misses": filled(HEAD + "models: [a]\n", lambda i: f"modles{i % 90 + 10}{i}: 1\n"),
    "unknown parameters": filled(HEAD + "models: [a]\nparameters:\n", lambda i: f"  foreign{i}: 1\n"),
    "models": filled(HEAD + "models:\n", lambda i: f"- model: m{i}\n"),
    "one model": filled(HEAD + "models:\n", lambda i: "- a\n"),
    "adapters": filled(HEAD + "models:\n", lambda i: f"- m{i}+l{i}\n"),
    "filters": filled(HEAD + "models: [a]\nparameters:\n  lambda:\n", lambda i: f"  - {{filter: f{i}, value: 1}}\n"),
    "gradient": filled(HEAD + "models: [a]\nparameters: {lambda: [", lambda i: f"{i},") + "1]}\n",
    "bad gradient": filled(HEAD + "models: [a]\nparameters: {lambda: [", lambda i: "x,") + "1]}\n",
    "slices": filled(
        "merge_method: passthrough\nslices:\n", lambda i: f"- sources: [{{model: a, layer_range: [{i}, {i + 1}]}}]\n"
    ),
    "modules": filled(HEAD + "modules:\n", lambda i: f"  m{i}: {{models: [a]}}\n"),
    "tokens": filled(HEAD + "models: [a]\ntokenizer:\n  tokens:\n", lambda i: f"    t{i}: {{source: a}}\n"),
    "documents": filled("", lambda i: f"---\nname: n{i}\nmerge_method: linear\nmodels: [a]\n"),
    "empty documents": filled("", lambda i: "---\n"),
    "the same key": filled(HEAD + "models: [a]\n", lambda i: "a: 1\n"),
    "aliases": filled(HEAD + "models: [a]\nx: &x 1\n", lambda i: f"y{i}: *x\n"),
    "one long word": HEAD + "models: [a]\n" + "x" * 900_000 + ": 1\n",
    "one long model": HEAD + "models: [" + "x" * 900_000 + "]\n",
    "pluses": HEAD + "models: [" + "x+" * 450_000 + "]\n",
    "ats": HEAD + "models: [" + "x@" * 450_000 + "]\n",
    "one long method": "merge_method: " + "x" * 900_000 + "\nmodels: [a]\n",
    "one long number": HEAD + "models: [a]\nparameters: {lambda: 0x" + "f" * 900_000 + "}\n",
    "one long time": HEAD + "models: [a]\nparameters: {lambda: 1" + ":59" * 300_000 + "}\n",
    "deep": HEAD + "models: [a]\nx: " + "[" * 450_000,
    "deep in blocks": HEAD + "models: [a]\nx:\n" + "- " * 450_000,
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_a_megabyte_is_read_or_refused(name):
    """How long it takes is not timed here; what was quadratic would not end."""
    check(LARGE[name])


def test_ten_thousand_lines_are_a_recipe():
    text = "merge_method: passthrough\nslices:\n"
    text += "".join(f"- sources:\n  - model: a\n    layer_range: [{i % 80}, {i % 80 + 1}]\n" for i in range(3400))
    assert text.count("\n") > 10_000
    (recipe,) = check(text)
    assert len(list(recipe.slices)) == 3400
