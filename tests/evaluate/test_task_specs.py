import json
import sys
from pathlib import Path

import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.task_specs import Options, read_tasks
from support import fake_lm_eval


@pytest.fixture
def items(tmp_path):
    def write(name, *tasks):
        file = tmp_path / name
        rows = [{"task": task, "prompt": "_a", "answer": "b"} for task in tasks]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return write


@pytest.fixture
def program(tmp_path):
    """The stand-in for lm_eval as an executable."""
    file = tmp_path / "bin" / "lm_eval"
    file.parent.mkdir()
    file.write_text(f"#!{sys.executable}\n" + Path(fake_lm_eval.__file__).read_text())
    file.chmod(0o755)
    return str(file)


def labels(specs, **options):
    return [job.label for job in read_tasks(specs, Options(**options))]


def test_a_file_gives_all_its_tasks_or_one(items):
    file = items("x.jsonl", "rev", "cnt", "rev")
    assert labels([f"exact:{file}"]) == ["rev", "cnt"]
    assert labels([f"exact:{file}:cnt"]) == ["cnt"]


def test_equal_tasks_of_unlike_files_are_told_apart(items):
    dev, test = items("dev.jsonl", "rev", "cnt"), items("test.jsonl", "rev")
    assert labels([f"exact:{dev}", f"exact:{test}:rev"]) == [f"exact:{dev}:rev", "cnt", f"exact:{test}:rev"]


def test_a_colon_in_a_file_name(items):
    assert labels([f"exact:{items('a:b.jsonl', 'rev')}"]) == ["rev"]


def test_harnesses_by_their_names(program, tmp_path):
    options = {"lm_eval": program, "command": "my_eval {model}", "store": tmp_path}
    jobs = read_tasks(["gsm8k", "lm-eval:tiny:acc", "command:code"], Options(**options))
    assert [(job.evaluator.name, job.task, job.label) for job in jobs] == [
        ("lm-eval", "gsm8k", "gsm8k"),
        ("lm-eval", "tiny:acc", "tiny"),
        ("command", "code", "code"),
    ]
    assert jobs[0].evaluator is jobs[1].evaluator
    assert labels(["lm-eval:tiny:acc", "lm-eval:tiny:f1"], **options) == ["lm-eval:tiny:acc", "lm-eval:tiny:f1"]


def test_reasoning_gym():
    pytest.importorskip("reasoning_gym")
    (job,) = read_tasks(["gym:chain_sum?min_terms=3"], Options(backend="tiny", samples=2))
    assert (job.evaluator.name, job.task, job.label) == ("gym", "chain_sum?min_terms=3", "chain_sum")
    assert job.evaluator.sampling.samples == 2
    assert labels(["gym:chain_sum?seed=1", "gym:chain_sum?seed=2"], backend="tiny") == [
        "gym:chain_sum?seed=1",
        "gym:chain_sum?seed=2",
    ]


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "nothing to score"),
        (["gsm9k"], r"unknown task 'gsm9k'(.|\n)*Did you mean 'gsm8k'"),
        (["lmeval:gsm8k"], r"Did you mean 'lm-eval'"),
        (["lm-eval:"], "unknown task 'lm-eval:'"),
        (["test.jsonl"], "Write exact:test.jsonl"),
        (["exact:absent.jsonl"], "absent.jsonl: cannot be read"),
        (["exact:absent.jsonl:rev"], "absent.jsonl: cannot be read"),
        (["command:math"], "--command"),
    ],
)
def test_specifications_that_make_no_sense(specs, message):
    with pytest.raises(RequestError, match=message):
        read_tasks(specs, Options())


def test_an_unknown_task_of_a_file_and_a_task_given_twice(items):
    file = items("x.jsonl", "rev")
    with pytest.raises(RequestError, match=r"unknown task 'reverse'(.|\n)*Did you mean 'rev'"):
        read_tasks([f"exact:{file}:reverse"], Options())
    with pytest.raises(RequestError, match="the task is given twice"):
        read_tasks([f"exact:{file}:rev", f"exact:{file}:rev"], Options())


def test_a_limit_does_not_silently_miss_a_command():
    with pytest.raises(RequestError, match="--limit does not reach"):
        read_tasks(["command:math"], Options(command="my_eval {model}", limit=3))


def test_unmatched_quotes_are_told_before_anything_runs(program):
    with pytest.raises(RequestError, match="cannot be split into words"):
        read_tasks(["gsm8k"], Options(lm_eval=program, lm_eval_args="--metadata '{"))


def test_the_users_cache_is_the_default_store(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Options().directory == tmp_path / "rlmerge" / "eval"
    assert Options(store=tmp_path / "own").directory == tmp_path / "own"
