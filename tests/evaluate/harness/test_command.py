import json
import shlex
import sys
from pathlib import Path

import pytest

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.harness.command import Command

MODEL = Path("/models/merged")


@pytest.fixture
def command(tmp_path):
    """An evaluator whose command runs the given Python code with the model, tasks and output as arguments."""

    def make(code, placeholders="{model} {tasks}", **options):
        script = tmp_path / "my_eval.py"
        script.write_text(f"import json, sys, pathlib\nmodel, *rest = sys.argv[1:]\n{code}\n")
        template = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {placeholders}"
        return Command(template, tmp_path / "store", **options)

    return make


def test_json_on_stdout(command):
    code = "print(json.dumps([{'task': t, 'items': [1, 0], 'metric': model} for t in rest[0].split(',')]))"
    scores = command(code).score(MODEL, ["math", "code"])
    assert [(s.task, s.metric, s.value) for s in scores] == [("math", str(MODEL), 0.5), ("code", str(MODEL), 0.5)]


def test_log_lines_may_come_before_the_json(command):
    code = "print('[1/2] loading'); print('{model} done'); print(json.dumps({'math': 0.5}, indent=2))"
    assert command(code).score(MODEL, ["math"])[0].value == 0.5


def test_json_in_a_file(command):
    code = "print('done'); pathlib.Path(rest[0]).write_text('{\"math\": 0.5}')"
    assert command(code, "{model} {output}").score(MODEL, ["math"])[0].value == 0.5


def test_json_in_a_directory(command):
    code = "d = pathlib.Path(rest[0].split('=')[1]); d.mkdir(); (d / 'log.json').write_text('{\"math\": 0.5}')"
    assert command(code, "{model} --log-dir={output}").score(MODEL, ["math"])[0].value == 0.5


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('port 8000 is taken')", r"failed with exit code 1(.|\n)*port 8000 is taken"),
        ("print('accuracy: 0.5')", r"gave no JSON in .*stdout.txt(.|\n)*accuracy: 0.5"),
        ("", r"gave no JSON(.|\n)*printed nothing"),
        ("print('{\"math\": 0.5')", "gave no JSON"),
        ("print('0.5')", "gave no JSON"),
        ("print('{\"maths\": 0.5}')", r"gave no score of task 'math'; it gave maths"),
        ("print('{}')", r"gave no score of task 'math'; it gave nothing"),
        ("print('{\"math\": NaN}')", r"task 'math': the score 'score' is nan"),
        ('print(\'{"math": "good"}\')', r"holds JSON of a shape that is not understood"),
        ("print('[' * 100000)", "gave no JSON"),
        ("import time; time.sleep(60)", "took longer than 2 s"),
    ],
)
def test_failures_say_what_where_and_what_it_printed(command, code, words):
    with pytest.raises(RunError, match=words) as caught:
        command(code, timeout=2).score(MODEL, ["math"])
    assert "math" in str(caught.value) and ("/models/merged" in str(caught.value) or "NaN" in code)


def test_an_output_that_was_not_written(command):
    with pytest.raises(RunError, match=r"gave no JSON in .*scores.json"):
        command("print('{\"math\": 0.5}')", "{model} {output}").score(MODEL, ["math"])


def test_what_is_no_command(tmp_path):
    with pytest.raises(RequestError, match="does not name the model"):
        Command("python my_eval.py", tmp_path)
    with pytest.raises(RequestError, match="cannot be split into words"):
        Command("python 'my_eval.py {model}", tmp_path)
    with pytest.raises(RequestError, match="cannot start 'no-such-harness'"):
        Command("no-such-harness {model}", tmp_path).score(MODEL, ["math"])


def test_the_identity_follows_the_scripts_content(command):
    before = command("print(1)").identity()
    assert command("print(1)").identity() == before
    assert command("print(2)").identity() != before
    json.dumps(before)


def test_no_shell_reads_the_model_path(command, tmp_path):
    code = "print(json.dumps({'math': 0.5, 'model': 0.0}) if model.endswith('; touch pwned') else 'wrong')"
    assert command(code).score(tmp_path / "a b; touch pwned", ["math"])[0].value == 0.5


def test_braces_in_a_path_or_a_task_mean_nothing(command, tmp_path):
    """Each placeholder is filled in once: a model may be called {tasks}."""
    code = "print(json.dumps({rest[0]: 0.5 if pathlib.Path(model).name == '{tasks} {x}' else 0.0}))"
    assert command(code).score(tmp_path / "{tasks} {x}", ["{model}"])[0].value == 0.5


def test_a_script_that_cannot_be_read_is_named(command, tmp_path, monkeypatch):
    made = command("print(1)")

    def refuse(self, *arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RequestError, match=r"is part of the command and cannot be read \(Permission denied\)"):
        made.identity()
