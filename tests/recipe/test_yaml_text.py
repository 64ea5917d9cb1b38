import pytest
import yaml

from rlmerge.errors import RecipeError
from rlmerge.recipe.tree import MAX_NODES
from rlmerge.recipe.yaml_text import MAX_BYTES, documents


@pytest.fixture(autouse=True, params=["libyaml", "Python"])
def parser(request, monkeypatch):
    """PyYAML with and without libyaml, which it does not bring everywhere."""
    if request.param == "Python":
        monkeypatch.setattr("rlmerge.recipe.yaml_text._LOADER", yaml.SafeLoader)


def plain(node):
    if isinstance(node.value, dict):
        return {name: plain(entry) for name, entry in node.value.items()}
    return [plain(item) for item in node.value] if isinstance(node.value, list) else node.value


def read(text):
    (root,) = documents(text, "r.yaml")
    return root


def fails(text):
    with pytest.raises(RecipeError) as caught:
        documents(text, "r.yaml")
    return caught.value.problems


def test_values_and_lines():
    root = read("a: 1\nb:\n  - true\n  - x\nc: {d: 0.5}\n")
    assert plain(root) == {"a": 1, "b": [True, "x"], "c": {"d": 0.5}}
    assert root.fields["b"].where == "r.yaml:2"
    assert root.fields["b"].items[1].line == 4


def test_the_place_of_an_entry_is_its_keys():
    root = read("a:\n\n  - 1\nb: &x\n  c: 1\nd:\n  *x\n")
    assert {name: entry.line for name, entry in root.fields.items()} == {"a": 1, "b": 4, "d": 6}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("2E3", 2000.0),
        ("-.5", -0.5),
        ("'1e-5'", "1e-5"),
        ("!!str 1e5", "1e5"),
        ("1_000", 1000),
        ("0x10", 16),
        ("0b11", 3),
        ("010", 8),
        ("1:30", 90),
        (".inf", float("inf")),
        ("yes", True),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("!!float 3", 3.0),
        ("'yes'", "yes"),
        ("=", "="),
    ],
)
def test_scalars_are_read_as_yaml_1_1_but_for_exponents(text, value):
    found = read(f"a: {text}\n").fields["a"].value
    assert found == value
    assert type(found) is type(value)


def test_scalars_keep_their_spelling():
    root = read("a: 007\nb: 2024-01-01\n")
    assert (root.fields["a"].text, root.fields["b"].value) == ("007", "2024-01-01")


def test_duplicate_keys_name_both_lines():
    (problem,) = fails("a: 1\nb: 2\na: 3\n")
    assert (problem.where, problem.hint) == ("r.yaml:3", "First at r.yaml:1.")


def test_anchors_and_merge_keys_work_as_in_yaml():
    root = read("x: &x {w: 1, d: 2}\ny: {<<: *x, d: 3}\nz: {<<: [*x, {e: 4, w: 5}]}\n&k kk: 1\nv: *k\n'<<': 3\n")
    assert plain(root.fields["y"]) == {"w": 1, "d": 3}
    assert plain(root.fields["z"]) == {"w": 1, "d": 2, "e": 4}
    assert root.fields["v"].value == "kk"
    assert root.fields["<<"].value == 3


def test_an_alias_as_a_key_is_its_text():
    (problem,) = fails("&k kk: 1\n*k : 2\n")
    assert problem.what == "key 'kk' is given twice"


def test_documents_are_separate_and_empty_ones_left_out():
    found = documents("---\n---\na: &x 1\n---\n# nothing\n---\nb: 2\n...\n", "r")
    assert [plain(root) for root in found] == [{"a": 1}, {"b": 2}]
    assert [root.line for root in found] == [3, 7]
    (problem,) = fails("a: &x 1\n---\nb: *x\n")
    assert problem.where == "r.yaml:3"
    assert documents("", "r") == documents("# only a comment\n", "r") == []


def test_a_byte_order_mark_and_windows_line_ends_are_nothing():
    assert plain(read("\ufeffa: 1\r\nb: [1,\r\n 2]\r\n")) == {"a": 1, "b": [1, 2]}


def test_a_billion_laughs_is_refused_before_it_is_told():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (problem,) = fails("\n".join(lines))
    assert "expands" in problem.what


def test_merged_mappings_count_as_often_as_they_are_merged():
    keys = ", ".join(f"k{i}: 1" for i in range(1000))
    (problem,) = fails(f"x: &x {{{keys}}}\n" + "".join(f"y{i}: {{<<: *x}}\n" for i in range(MAX_NODES // 1000)))
    assert "expands" in problem.what


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: [1\n", 3, "not valid YAML"),
        ("a: 1\nb: \x00", 2, "not valid YAML: the character U+0000"),
        ("a: 1\nb: \ud800", 2, "the character U+D800"),
        ("a: 1\nb: *x\n", 2, "the alias *x has no anchor"),
        ("a: !!python/object/apply:os.system ['true']", 1, "no meaning"),
        ("a: !!set {x}", 1, "no meaning"),
        ("b: 1\na: !secret x", 2, "no meaning"),
        ("b: 1\na: !!int x", 2, "cannot read"),
        ("b: 1\na: !!int ''", 2, "cannot read"),
        ("b: 1\na: !!int '0x'", 2, "cannot read"),
        ("b: 1\na: !!float x", 2, "cannot read"),
        ("b: 1\na: !!bool x", 2, "cannot read"),
        (f"b: 1\na: {'9' * 5000}", 2, "cannot read"),
        (f"b: 1\na: 0x{'f' * 4000}", 2, "cannot read"),
        (f"b: 1\na: 1{':59' * 5000}", 2, "cannot read"),
        ("b: 1\n? [a]\n: 1", 2, "plain name"),
        ("b: 1\n? {a: 1}\n: 1", 2, "plain name"),
        ("b: 1\na: &a [*a]", 2, "contains it"),
        ("b: 1\n<<: 3", 2, "'<<'"),
        ("b: 1\na: " + "[" * 5000, 2, ""),
        ("b: 1\na: " + "{a: " * 5000, 2, "too deeply"),
        ("b: 1\na:\n" + "- " * 5000, 3, "too deeply"),
        ("b: 1\na: [" + "1," * MAX_NODES + "]", 2, "expands to more than 100000 values"),
    ],
)
def test_hostile_or_broken_text_is_one_clear_error_with_its_line(text, line, what):
    (problem,) = fails(text)
    assert what in problem.what
    assert problem.where == f"r.yaml:{line}"
    assert len(problem.what) < 500


def test_a_recipe_has_a_largest_size():
    (problem,) = fails("a" * (MAX_BYTES + 1))
    assert "larger than 1 MB" in problem.what


def test_every_unreadable_value_is_told_but_not_ten_thousand_of_them():
    found = fails("".join(f"x{i}: !!bool x\n" for i in range(10_000)))
    assert len(found) == 101
    assert found[-1].what == "and 9900 more problems"
