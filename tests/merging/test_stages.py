"""Several recipes in one file: what runs, in which order, what is kept, and what is skipped."""

import pytest

import rlmerge
from rlmerge.errors import CheckpointError, RecipeError, RequestError
from support.family import tree
from support.merges import localised, numbers, write
from support.models import read_model

W, V = "model.layers.0.w", "model.norm.weight"
TWO = """
name: half
merge_method: linear
models: [$/a, $/b]
---
merge_method: task_arithmetic
base_model: $/a
models: [half, $/c]
"""
"""half = (a + b) / 2, and then a + (half − a) + (c − a)."""

CHAIN = """
merge_method: linear
models: [second, $/a]
---
name: second
merge_method: task_arithmetic
base_model: first
models: [$/c]
---
name: first
merge_method: linear
models: [$/a, $/b]
"""
"""Written in reverse; first = (a + b) / 2, second = first + (c − first) = c, the result (c + a) / 2."""


@pytest.fixture
def folder(tmp_path):
    """Models of 0, 4 and 8 all over."""
    write(tmp_path, **{name: {W: [[v, v]], V: [v]} for name, v in zip("abc", (0, 4, 8), strict=True)})
    return tmp_path


class Messages:
    """What a run says of itself."""

    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)

    def start(self, label, total):
        if label == "merge":
            self.lines.append("merge")

    def advance(self, amount):
        pass

    def done(self):
        pass


def run(folder, text=TWO, **options):
    """What a merge of ``text`` makes, and what it said."""
    said = Messages()
    rlmerge.merge(localised(folder, text), folder / "out", progress=said, cache=False, **options)
    return numbers(folder / "out"), said.lines


def made(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name not in ("a", "b", "c"))


@pytest.mark.parametrize(("text", "value"), [(TWO, 2 + 8), (CHAIN, 4)], ids=["two", "chain"])
def test_results_stand_for_models(folder, text, value):
    merged, said = run(folder, text)
    assert merged == {W: [[value, value]], V: [value]}
    assert said.count("merge") == text.count("merge_method")


def test_intermediate_results_go_once_the_last_is_complete(folder):
    run(folder)
    assert made(folder) == ["out"]
    run(folder, force=True, keep_stages=True)
    assert made(folder) == ["out", "out.stages"]
    assert numbers(folder / "out.stages" / "half") == {W: [[2, 2]], V: [2]}
    assert rlmerge.verify(folder / "out.stages" / "half").ok


def test_a_kept_stage_is_used_again(folder):
    first, _ = run(folder, CHAIN, keep_stages=True)
    kept = tree(folder / "out.stages")
    again, said = run(folder, CHAIN, keep_stages=True, force=True)
    assert again == first
    assert tree(folder / "out.stages") == kept
    assert said.count("merge") == 1
    assert sum("is complete" in line for line in said) == 2


@pytest.mark.parametrize("changed", ["model", "recipe", "seed", "file"])
def test_a_stage_of_other_inputs_or_another_recipe_is_made_anew(folder, changed):
    text, options = TWO, {}
    run(folder, text, keep_stages=True)
    if changed == "model":
        write(folder, b={W: [[6, 6]], V: [6]})
    elif changed == "recipe":
        text = text.replace("models: [$/a, $/b]", "models: [{model: $/a, parameters: {weight: 3}}, $/b]", 1)
        text = text.replace("$/b]", "{model: $/b, parameters: {weight: 1}}]", 1)
    elif changed == "seed":
        options = {"seed": 1}
    else:
        file = folder / "out.stages" / "half" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\1")
    merged, said = run(folder, text, force=True, **options)
    assert said.count("merge") == 2
    half = {"model": 3, "recipe": 1, "seed": 2, "file": 2}[changed]
    assert merged == {W: [[half + 8] * 2], V: [half + 8]}


def test_a_stage_upon_a_stage_that_changed_is_made_anew(folder):
    """``second`` names only ``first`` and a model that stays; ``first`` reads another one."""
    text = CHAIN.replace("base_model: first\nmodels: [$/c]", "base_model: $/a\nmodels: [first, $/c]")
    run(folder, text, keep_stages=True)
    write(folder, b={W: [[6, 6]], V: [6]})
    merged, said = run(folder, text, force=True, keep_stages=True)
    assert said.count("merge") == 3
    assert merged == {W: [[(3 + 8) / 2] * 2], V: [(3 + 8) / 2]}


def test_interrupted_after_the_first_of_two_that_changed(folder):
    """The first stage is new, the second still the old one when the program is started again."""
    text = CHAIN.replace("base_model: first\nmodels: [$/c]", "base_model: $/a\nmodels: [first, $/c]")
    run(folder, text, keep_stages=True)
    write(folder, b={W: [[6, 6]], V: [6]})
    rlmerge.merge(localised(folder, "name: first\nmerge_method: linear\nmodels: [$/a, $/b]\n"), folder / "new")
    first = folder / "out.stages" / "first"
    for file in (folder / "new").iterdir():
        (first / file.name).write_bytes(file.read_bytes())
    merged, _ = run(folder, text, force=True, keep_stages=True)
    assert merged == {W: [[(3 + 8) / 2] * 2], V: [(3 + 8) / 2]}


@pytest.mark.parametrize("text", [TWO, CHAIN], ids=["two", "chain"])
def test_the_lock_of_the_result_makes_it_again(folder, text):
    run(folder, text)
    rlmerge.merge(folder / "out" / "rlmerge.lock.yaml", folder / "again", cache=False)
    one, again = tree(folder / "out"), tree(folder / "again")
    assert one["model.safetensors"] == again["model.safetensors"]
    assert one["rlmerge.lock.yaml"] == again["rlmerge.lock.yaml"]
    assert one["README.md"] == again["README.md"]
    card = one["README.md"].decode()
    assert card.split("base_model:\n")[1].split("base_model_relation")[0].split() == ["-", "a", "-", "b", "-", "c"]
    write(folder, b={W: [[6, 6]], V: [6]})
    with pytest.raises(RequestError, match="holds other values than those that were merged"):
        rlmerge.merge(folder / "out" / "rlmerge.lock.yaml", folder / "third", cache=False)


def test_types_of_the_command_line_are_the_results(folder):
    run(folder, out_dtype="bfloat16", keep_stages=True)
    assert {str(tensor.dtype) for tensor in read_model(folder / "out").values()} == {"bfloat16"}
    assert {str(t.dtype) for t in read_model(folder / "out.stages" / "half").values()} == {"float32"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (TWO.replace("$/c", "$/missing"), CheckpointError),
        (TWO.replace("base_model: $/a", "base_model: $/wide"), RecipeError),
        (TWO.replace("models: [half, $/c]", "slices: [{sources: [{model: half, layer_range: [0, 9]}]}]"), RequestError),
    ],
    ids=["missing model", "shapes", "range"],
)
def test_all_stages_are_planned_before_the_first_byte(folder, text, error):
    """The last stage is wrong, by what is known of the first one's result alone."""
    write(folder, wide={W: [[0, 0, 0]], V: [0]})
    before = tree(folder)
    with pytest.raises(error):
        run(folder, text.replace("task_arithmetic", "passthrough") if "slices" in text else text)
    assert tree(folder) == before


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_directory_that_is_no_result_is_not_replaced(folder, name):
    own = folder / "out.stages" / name
    own.mkdir(parents=True)
    (own / "notes.txt").write_text("mine")
    before = tree(folder)
    with pytest.raises(RequestError, match=name):
        run(folder, CHAIN)
    assert tree(folder) == before


def test_a_name_comes_before_a_directory_of_that_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write(folder, half={W: [[100, 100]], V: [100]})
    assert run(folder)[0] == {W: [[10, 10]], V: [10]}
