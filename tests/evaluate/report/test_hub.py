from dataclasses import replace

import pytest
import yaml

from rlmerge import __version__
from rlmerge.errors import RequestError
from rlmerge.evaluate.report.hub import Benchmark, hub_files, read_benchmark
from support.evaluations import evaluation, hostile


def scored(n=1319, task="gsm8k", metric="exact_match,flexible-extract"):
    found = evaluation({"base": (0.2,), "e": (0.6,), "m": (0.5678,)}, (task,), experts=1)
    scores = (replace(cell, score=replace(cell.score, n=n, metric=metric)) for cell in found.scores)
    return replace(found, scores=tuple(scores), tasks=(replace(found.tasks[0], metric=metric),))


def test_a_known_benchmark_is_written_for_every_model():
    files = hub_files(scored(), date="2026-01-15")
    assert list(files) == [f"{name}/.eval_results/gsm8k.yaml" for name in ("base", "e", "m")]
    assert yaml.safe_load(files["m/.eval_results/gsm8k.yaml"]) == [
        {
            "dataset": {"id": "openai/gsm8k", "task_id": "gsm8k"},
            "value": 56.78,
            "date": "2026-01-15",
            "notes": f"rlmerge {__version__}, exact_match,flexible-extract, 95 % interval 53.8 to 59.8",
        }
    ]


def test_the_hub_s_own_reader_takes_them():
    hub = pytest.importorskip("huggingface_hub")
    parse = pytest.importorskip("huggingface_hub._eval_results").parse_eval_result_entries
    given = {"gsm8k": Benchmark("owner/data", "test", revision="abc")}
    (text,) = [text for name, text in hub_files(scored(), given).items() if name.startswith("m/")]
    (entry,) = parse(yaml.safe_load(text))
    assert isinstance(entry, hub.EvalResultEntry)
    assert (entry.dataset_id, entry.task_id, entry.value, entry.dataset_revision, entry.date) == (
        "owner/data", "test", 56.78, "abc", None,
    )  # fmt: skip
    assert hub.eval_result_entries_to_yaml([entry]) == yaml.safe_load(text)


def test_a_part_of_a_benchmark_is_not_its_score():
    with pytest.raises(RequestError, match="scored on 50 items, the benchmark has 1319"):
        hub_files(scored(n=50))


def test_tasks_without_a_benchmark_are_left_out_or_all_refused():
    with pytest.raises(RequestError, match="mine: no benchmark of the Hub is known for it") as error:
        hub_files(scored(task="mine"))
    assert "gsm8k" in error.value.hint
    both = evaluation({"base": (0.2, 0.3)}, ("mine", "other"), experts=0)
    files = hub_files(both, {"other": Benchmark("a/b", "c", percent=False)})
    assert list(files) == ["base/.eval_results/other.yaml"]
    assert yaml.safe_load(files["base/.eval_results/other.yaml"])[0]["value"] == 0.3


def test_a_score_that_is_missing_is_left_out():
    found = scored()
    files = hub_files(replace(found, scores=found.scores[:2]))
    assert list(files) == ["base/.eval_results/gsm8k.yaml", "e/.eval_results/gsm8k.yaml"]


def test_no_name_leaves_the_directory_or_meets_another():
    found = hostile()
    names = dict(zip((model.name for model in found.models), ("../../etc", "/x", "X", "..."), strict=True))
    models = tuple(replace(model, name=names[model.name]) for model in found.models)
    scores = tuple(replace(cell, model=names[cell.model]) for cell in found.scores)
    files = hub_files(replace(found, models=models, scores=scores), {found.tasks[0].task: Benchmark("a/b", "c")})
    assert [name.split("/")[0] for name in files] == ["etc", "x", "X-2", "unnamed"]
    assert all(name.count("/") == 2 and ".." not in name for name in files)


@pytest.mark.parametrize("word", ["gsm8k", "=a/b:c", "t=a:c", "t=a/b", "t=a/b/c:d", "t=../x:d e/f"])
def test_what_names_no_benchmark_is_refused(word):
    with pytest.raises(RequestError):
        read_benchmark(word)


def test_a_benchmark_on_the_command_line():
    assert read_benchmark("math500=HuggingFaceH4/MATH-500:math_500@main") == (
        "math500",
        Benchmark("HuggingFaceH4/MATH-500", "math_500", revision="main"),
    )
