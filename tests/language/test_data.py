from __future__ import annotations

import hashlib
import json

import pytest

from rlmerge.errors import RequestError
from rlmerge.language.data import Example, read_data, read_prompts


def write(tmp_path, *rows, name="data.jsonl"):
    path = tmp_path / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return str(path)


def read(tmp_path, *rows, name="data.jsonl", sequences=None):
    return read_data(write(tmp_path, *rows, name=name), sequences, seed=0)


def only(tmp_path, row) -> Example:
    (example,) = read(tmp_path, row).examples
    return example


def test_plain_text_has_one_sequence_a_line(tmp_path):
    data = read(tmp_path, "first line", "", "  second  ", name="data.txt")
    assert [(e.prompt, e.text, e.response) for e in data.examples] == [
        ("first line", True, None),
        ("second", True, None),
    ]
    assert data.examples[1].where.endswith("data.txt:3")
    assert data.digest == hashlib.sha256((tmp_path / "data.txt").read_bytes()).hexdigest()


def test_pairs(tmp_path):
    for key in ("response", "completion", "answer"):
        example = only(tmp_path, {"prompt": "1+1=", key: "2"})
        assert (example.prompt, example.response, example.answer) == ("1+1=", "2", "2")
    assert only(tmp_path, {"prompt": "p", "response": "so 2", "answer": 2}).answer == "2"
    assert only(tmp_path, {"prompt": "p"}).response is None


def test_messages(tmp_path):
    user, assistant = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    example = only(tmp_path, {"messages": [user, assistant]})
    assert (example.prompt, example.response, example.answer) == ((user,), assistant, "a")
    assert only(tmp_path, {"messages": [user, assistant, user]}).response is None
    conversational = only(tmp_path, {"prompt": [user], "completion": [assistant]})
    assert (conversational.prompt, conversational.response, conversational.answer) == ((user,), assistant, "a")
    assert only(tmp_path, {"prompt": [user], "completion": "a"}).response == assistant


TASKS = ({"task": "add", "prompt": "1+1"}, {"task": "sort", "prompt": "ba"}, {"task": "add", "prompt": "2+2"})


def test_a_task_selects_its_lines(tmp_path):
    file = write(tmp_path, *TASKS)
    data = read_data(f"{file}:add", 1, seed=0)
    assert [(e.where, e.prompt) for e in data.examples] == [(f"{file}:1", "1+1")]
    assert [e.where for e in read_data(f"{file}:add", None, seed=0).examples] == [f"{file}:1", f"{file}:3"]
    assert len({data.digest, read_data(f"{file}:sort", 1, seed=0).digest, read_data(file, 1, seed=0).digest}) == 3


def test_tasks_that_no_line_has_are_refused(tmp_path):
    with pytest.raises(RequestError, match=r"(?s)no line has the task 'ad'.*Did you mean 'add'"):
        read_data(write(tmp_path, *TASKS) + ":ad", None, seed=0)


def test_a_file_with_such_a_name_is_taken_whole(tmp_path):
    file = write(tmp_path, '{"text": "a"}', name="odd.jsonl:add.jsonl")
    assert len(read_data(file, None, seed=0).examples) == 1


def test_unicode_line_separators_inside_strings_do_not_split_lines(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes('{"text": "a\u2028b"}\r\n'.encode())
    assert read_data(str(path), None, 0).examples[0].prompt == "a\u2028b"


def test_reads_no_further_than_asked(tmp_path):
    data = read(tmp_path, {"text": "a"}, {"text": "b"}, "not json", sequences=2)
    assert len(data.examples) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "data.jsonl:2: not JSON"),
        ("[" * 100_000, "data.jsonl:2: not JSON"),
        ("[]", "data.jsonl:2: a line of JSONL must be an object"),
        ('{"text": "\\ud800"}', "data.jsonl:2: not JSON"),
        ('{"promt": "x"}', "keys are promt"),
        ('{"prompt": ""}', '"prompt" must be a non-empty string'),
        ('{"prompt": "x", "response": 3}', '"response" must be a non-empty string'),
        ('{"messages": []}', "messages must be a non-empty list"),
        ('{"messages": [{"role": "user"}]}', "messages must be a non-empty list"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "needs a turn before the assistant's"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    with pytest.raises(RequestError, match=r"data\.jsonl:2") as error:
        read(tmp_path, {"text": "fine"}, line)
    assert message in str(error.value)


def test_bad_files(tmp_path):
    with pytest.raises(RequestError, match="No such file"):
        read_data(str(tmp_path / "absent.jsonl"), None, 0)
    with pytest.raises(RequestError, match="no examples"):
        read(tmp_path, "", "  ")
    with pytest.raises(RequestError, match="not JSONL"):
        read(tmp_path, "[]", name="data.json")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match=r"is not UTF-8 text \(byte 0\)"):
        read_data(str(tmp_path / "binary.txt"), None, 0)


def test_reasoning_gym_is_seeded_and_configurable():
    pytest.importorskip("reasoning_gym")
    reference = 'reasoning-gym:chain_sum:{"min_terms": 2, "max_terms": 2, "max_digits": 1}'
    data = read_data(reference, 5, seed=3)
    assert len(data.examples) == 5
    assert data.digest == read_data(reference, 5, seed=3).digest
    assert data.digest != read_data(reference, 5, seed=4).digest
    for example in data.examples:
        expression = str(example.prompt).split(":")[1].rstrip(" =")
        assert len(expression.split()) == 3
        left, sign, right = expression.split()
        assert int(str(example.answer)) == int(left) + (1 if sign == "+" else -1) * int(right)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("reasoning-gym:chainsum", "Did you mean 'chain_sum'"),
        ("reasoning-gym:chain_sum:{", "settings are not JSON"),
        ('reasoning-gym:chain_sum:{"nonsense": 1}', "does not take these settings"),
        ('reasoning-gym:chain_sum:{"min_terms": -1}', "does not take these settings"),
        ("reasoning-gym:chain_sum:3", "settings must be a JSON object"),
    ],
)
def test_bad_reasoning_gym_references(reference, message):
    pytest.importorskip("reasoning_gym")
    with pytest.raises(RequestError, match=message):
        read_data(reference, 2, 0)


def test_text_has_a_prompt_on_each_line_that_is_not_blank(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeffone\r\n\n  two \nthree", encoding="utf-8")
    assert read_prompts(file) == ("one", "  two ", "three")


def test_json_lines_have_it_as_prompt(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "one\\ntwo", "answer": "x"}\n\n{"prompt": "a b"}\n', encoding="utf-8")
    assert read_prompts(file) == ("one\ntwo", "a b")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("one", "not JSON"),
        ('{"question": "x"}', 'has no "prompt"; its keys are question'),
        ('["x"]', "must be an object"),
        ('{"prompt": ""}', "must be a non-empty string"),
        ('{"prompt": [{"role": "user", "content": "x"}]}', "must be a non-empty string"),
    ],
)
def test_other_lines_of_prompts_are_named(tmp_path, line, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "x"}\n' + line)
    with pytest.raises(RequestError, match=message) as error:
        read_prompts(file)
    assert error.value.where == f"{file}:2"


def test_files_without_prompts_are_refused(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n  \n")
    with pytest.raises(RequestError, match="holds no prompts"):
        read_prompts(file)
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(RequestError, match="is not UTF-8 text"):
        read_prompts(file)
    with pytest.raises(RequestError, match="cannot be read"):
        read_prompts(tmp_path / "absent")
