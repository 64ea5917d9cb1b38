import json
import sys
from pathlib import Path

import pytest

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.harness.lm_eval import LmEval, find_program
from support import fake_lm_eval

HARNESS = (sys.executable, fake_lm_eval.__file__)
MODEL = Path("/models/merged")


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The calls of the stand-in so far."""
    log = tmp_path / "calls.jsonl"
    monkeypatch.setenv("FAKE_LM_EVAL_LOG", str(log))
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


def make(tmp_path, **options):
    return LmEval(HARNESS, tmp_path / "store", **options)


def test_scores_with_items_in_order_and_the_json_untouched(tmp_path, calls):
    first, second = make(tmp_path).score(MODEL, ["tiny"])
    assert (first.task, first.metric, first.stderr, first.n) == ("tiny", "exact_match,strict-match", 0.07, 40)
    assert second.metric == "exact_match,flexible-extract" and set(second.items) == {1.0}
    file = Path(first.details["file"])
    rows = [json.loads(line) for line in next(file.parent.glob("samples_*")).read_text().splitlines()]
    strict = {row["doc_id"]: row["exact_match"] for row in rows if row["filter"] == "strict-match"}
    assert first.items == tuple(strict[index] for index in range(40))
    assert json.loads(file.read_text())["results"]["tiny"]["exact_match,strict-match"] == first.value
    (call,) = calls()
    assert call["arguments"]["model"] == "hf" and call["arguments"]["model_args"] == "pretrained=/models/merged"
    assert call["arguments"]["log_samples"] and call["code"] is None and call["rest"] == []


def test_a_metric_that_is_no_mean_has_no_items(tmp_path):
    perplexity, accuracy = make(tmp_path).score(MODEL, ["loss"])
    assert (perplexity.metric, perplexity.higher_is_better) == ("perplexity,none", False)
    assert (perplexity.items, perplexity.stderr) == (None, None)
    assert len(accuracy.items) == 40


def test_a_group_has_its_aggregate(tmp_path):
    (score,) = make(tmp_path).score(MODEL, ["group"])
    assert (score.value, score.stderr, score.n, score.items) == (0.75, 0.05, 40, None)


def test_several_tasks_in_one_call(tmp_path, calls):
    scores = make(tmp_path).score(MODEL, ["loss:acc", "tiny:exact_match,flexible-extract"])
    assert [score.task for score in scores] == ["loss:acc"] * 2 + ["tiny:exact_match,flexible-extract"] * 2
    assert [scores[0].metric, scores[2].metric] == ["acc,none", "exact_match,flexible-extract"]
    assert [call["arguments"]["tasks"] for call in calls()] == ["loss,tiny"]


def test_presets_go_by_lm_evals_names(tmp_path, calls):
    assert make(tmp_path).score(MODEL, ["math500"])[0].metric == "math_verify,none"
    found = make(tmp_path, chat=True, unsafe_code=True).score(MODEL, ["humaneval"])
    assert (found[0].task, found[0].metric) == ("humaneval", "pass@1,create_test")
    plain, chat = calls()
    assert plain["arguments"]["tasks"] == "minerva_math500" and not plain["arguments"]["apply_chat_template"]
    assert chat["arguments"]["tasks"] == "humaneval_instruct" and chat["arguments"]["apply_chat_template"]
    assert chat["arguments"]["confirm_run_unsafe_code"] and chat["code"] == "1"


def test_a_models_code_runs_only_when_that_is_allowed(tmp_path):
    with pytest.raises(RequestError, match=r"runs code that the model writes(.|\n)*--unsafe-code"):
        make(tmp_path).score(MODEL, ["mbpp"])
    assert not (tmp_path / "store").exists()


def test_options_reach_the_command_line(tmp_path, calls):
    include = tmp_path / "tasks"
    include.mkdir()
    options = {"backend": "vllm", "model_args": "dtype=bfloat16", "include": include, "batch_size": "auto"}
    (tiny, _) = make(tmp_path, **options, device="cuda:1", limit=7, extra=("--num_fewshot", "0")).score(MODEL, ["tiny"])
    assert tiny.n == 7
    (call,) = calls()
    assert call["arguments"]["model"] == "vllm"
    assert call["arguments"]["model_args"] == "pretrained=/models/merged,dtype=bfloat16"
    assert [call["arguments"][name] for name in ("include_path", "device", "limit")] == [str(include), "cuda:1", "7"]
    assert call["rest"] == ["--num_fewshot", "0"]


def test_a_server_is_asked_for_the_model(tmp_path, calls):
    make(tmp_path, backend="server", server="http://host:8000/v1/").score(MODEL, ["tiny"])
    (call,) = calls()
    assert call["arguments"]["model"] == "local-completions"
    expected = "model=/models/merged,tokenizer=/models/merged,base_url=http://host:8000/v1/completions"
    assert call["arguments"]["model_args"] == expected


@pytest.mark.parametrize(
    ("task", "kind", "words"),
    [
        ("crash", RunError, r"failed with exit code 1(.|\n)*CUDA out of memory"),
        ("offline", RunError, r"could not reach its data(.|\n)*HF_HUB_OFFLINE=1"),
        ("silent", RunError, r"wrote no results"),
        ("nan", RunError, r"task 'nan': the score 'exact_match,none' is nan"),
        ("bare", RunError, r"holds no metric of task 'bare'"),
        ("tinny", RequestError, r"unknown lm-eval task \(ValueError: Tasks not found: tinny\)"),
        ("tiny:acc", RequestError, r"unknown metric 'acc' of task 'tiny'"),
    ],
)
def test_failures_say_what_and_where(tmp_path, task, kind, words):
    with pytest.raises(kind, match=words):
        make(tmp_path).score(MODEL, [task])


def test_the_identity_follows_what_decides_the_scores(tmp_path):
    include = tmp_path / "tasks"
    include.mkdir()
    plain, limited = make(tmp_path).identity(), make(tmp_path, limit=5).identity()
    mine = make(tmp_path, include=include).identity()
    (include / "task.yaml").write_text("task: mine")
    changed = make(tmp_path, include=include).identity()
    assert len({json.dumps(found, sort_keys=True) for found in (plain, limited, mine, changed)}) == 4
    assert "torch" in plain["versions"] or "program" in plain["versions"]
    json.dumps(changed)


def test_what_cannot_be_asked_for(tmp_path):
    with pytest.raises(RequestError, match="unknown lm-eval back end 'tiny'"):
        make(tmp_path, backend="tiny")
    with pytest.raises(RequestError, match="needs the server's address"):
        make(tmp_path, backend="server")
    with pytest.raises(RequestError, match="no such directory of lm-eval tasks"):
        make(tmp_path, include=tmp_path / "absent")
    with pytest.raises(RequestError, match="there is no such program"):
        find_program(str(tmp_path / "lm_eval"))


def test_the_program_is_found_on_the_path(tmp_path, monkeypatch):
    program = tmp_path / "lm_eval"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program() == (str(program),)


def test_a_path_that_lm_eval_would_split_is_refused(tmp_path):
    with pytest.raises(RequestError, match="cannot read a model path with a comma"):
        make(tmp_path).score(tmp_path / "lr=1e-5,seed=3", ["tiny"])
