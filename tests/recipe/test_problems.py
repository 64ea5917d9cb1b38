import pytest

from rlmerge.errors import RecipeError
from rlmerge.recipe.problems import MOST, MOST_FOREIGN, Problems, as_switch, as_whole
from rlmerge.recipe.tree import from_value


def test_nothing_found_raises_nothing():
    problems = Problems()
    problems.warn("r:1", "odd")
    problems.raise_if_any()
    assert problems.warnings == ("r:1: odd",)


def test_all_findings_are_raised_together_by_line():
    problems = Problems()
    problems.add("r:12", "second")
    problems.add("r:2", "first", "Do this.")
    problems.add("r", "of the whole")
    with pytest.raises(RecipeError, match=r"r: of the whole\nr:2: first\n  Do this\.\nr:12: second"):
        problems.raise_if_any()


def test_a_thousand_findings_are_counted_and_not_told():
    problems = Problems()
    for number in range(MOST + 5):
        problems.add(f"r:{number}", "wrong")
        problems.warn(f"r:{number}", "odd")
    assert len(problems) == MOST + 5
    assert [error.what for error in problems.errors[-2:]] == ["wrong", "and 5 more problems"]
    assert problems.warnings[-1] == "and 5 more warnings"


def fields(value, known, parameters=(), **mode):
    problems = Problems(**mode)
    found = problems.fields(from_value(value), known, "an entry", parameters)
    return list(found), [(e.what, e.hint) for e in problems.errors], [w.split(": ", 1)[-1] for w in problems.warnings]


def test_a_near_miss_is_an_error():
    found, errors, warnings = fields({"model": 1, "modle": 2}, ("model", "parameters"))
    assert (found, errors) == (["model"], [("unknown key 'modle' in an entry", "Did you mean 'model'?")])
    assert warnings == []


def test_any_other_key_is_a_warning_and_an_extension_is_nothing():
    found, errors, warnings = fields({"model": 1, "license": 2, "x-anything": 3}, ("model",))
    assert (found, errors) == (["model"], [])
    assert warnings == ["unknown key 'license' in an entry: ignored, as in mergekit"]


def test_a_key_of_another_place_is_an_error_that_names_the_place():
    _, errors, _ = fields({"layer_range": 1, "density": 2}, ("model",), ("density",))
    assert [hint for _, hint in errors] == [
        "`layer_range` goes beside a `model:` under `sources` of a slice.",
        "'density' goes under `parameters:`.",
    ]


def test_a_misspelled_parameter_of_another_place_is_an_error_too():
    _, errors, warnings = fields({"densty": 2, "tag": 1}, ("model",), ("density", "t"))
    assert errors == [("unknown key 'densty' in an entry", "Did you mean 'density'?")]
    assert warnings == ["unknown key 'tag' in an entry: ignored, as in mergekit"]


def test_a_seed_is_sent_to_the_command_line():
    _, errors, warnings = fields({"random_seed": 2, "seed": 3}, ("model",))
    assert errors == []
    assert all("give --seed on the command line" in text for text in warnings)


def test_lenient_makes_warnings_of_them_all():
    _, errors, warnings = fields({"modle": 1, "density": 2, "layer_range": 3}, ("model",), ("density",), lenient=True)
    assert errors == []
    assert len(warnings) == 3


def test_more_keys_than_anyone_writes_are_one_error():
    _, errors, _ = fields({f"foreign{i}": 1 for i in range(2 * MOST_FOREIGN)}, ("model",))
    assert errors == [("more than 1000 keys mean nothing in a recipe", "Is this file a recipe?")]


@pytest.mark.parametrize("value", [None, "", "  ", [], {}])
def test_text_must_have_content(value):
    problems = Problems()
    assert problems.text(from_value(value), "a name") is None
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("value", "number"),
    [(4, 4), (4.0, 4), ("4", 4), ("-2", -2), (True, None), (4.5, None), (float("nan"), None), ("x", None),
     (float("inf"), None), ([4], None), (None, None), ("4" * 30, None)],
)  # fmt: skip
def test_whole_numbers(value, number):
    assert as_whole(from_value(value)) == number


@pytest.mark.parametrize(
    ("value", "state"),
    [(True, True), (0, False), (1.0, True), ("true", True), ("No", False), ("off", False), (2, None), ("l1", None),
     (None, None), ([], None)],
)  # fmt: skip
def test_switches(value, state):
    assert as_switch(value) is state


def test_messages_are_safe_to_print():
    problems = Problems()
    problems.add("r:1", "key '\x1b[31m' " + "x" * 10_000)
    assert problems.errors[0].what.isprintable()
    assert len(problems.errors[0].what) < 500
