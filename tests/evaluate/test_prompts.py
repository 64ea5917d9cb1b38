import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.prompts import read_prompts


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
        ("one", "holds no prompt"),
        ('{"question": "x"}', "holds no prompt"),
        ('["x"]', "holds no prompt"),
        ('{"prompt": ""}', "must be a string that is not empty"),
        ('{"prompt": [{"role": "user", "content": "x"}]}', "must be a string that is not empty"),
    ],
)
def test_other_lines_are_named(tmp_path, line, message):
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
    with pytest.raises(RequestError, match="cannot be read"):
        read_prompts(file)
    with pytest.raises(RequestError, match="cannot be read"):
        read_prompts(tmp_path / "absent")
