"""The ``tune:`` section and what stands over it."""

import pytest

from rlmerge.errors import RequestError
from rlmerge.recipe.yaml_text import documents
from rlmerge.search.settings import read_settings


def read(text, **given):
    return read_settings(documents(text, "s.yaml")[0], given)


def test_the_section_and_what_is_given_over_it():
    found = read(
        "tasks: [exact:dev.jsonl]\ntrials: 5\nobjective: [gain_kept, off_task]\nown: {rev: rev, cnt: [cnt, add]}\n"
        "evaluate: {backend: vllm}\n",
        trials=9,
        limit=None,
    )
    assert (found.tasks, found.trials, found.limit) == (("exact:dev.jsonl",), 9, None)
    assert [objective.name for objective in found.objectives] == ["gain_kept", "off_task"]
    assert found.own == {"rev": ["rev"], "cnt": ["cnt", "add"]}
    assert found.evaluate.backend == "vllm"
    assert found.is_multiple


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trials: 0", "s.yaml:2: trials must be a whole number of 1 or more, not 0"),
        ("trials: many", "trials must be a whole number"),
        ("hours: 0", "hours must be a number above 0, not 0"),
        ("sampler: tpa", "Did you mean 'tpe'"),
        ("trails: 3", "s.yaml:2: `tune` has no 'trails'\n  Did you mean 'trials'"),
        ("test: [exact:dev.jsonl]", "is both what the search chooses by and its test"),
        ("objective: [gain_kept, gain_kept]", "name every objective once"),
        ("evaluate: {backand: vllm}", "Did you mean 'backend'"),
        ("own: [rev]", "`own` maps experts to tasks"),
        ("round: [3]", "this is one plain value"),
        ("objective: proxy:kl", "'proxy:kl' needs prompts of each expert\n  Add --prompts EXPERT=FILE.jsonl"),
        ("prompts: [a.jsonl]", "`prompts` is a mapping"),
        ("prompts: {rev: [a.jsonl]}", "s.yaml:2: the prompts of 'rev' are no file"),
        ("divergence: {sequencse: 3}", "`divergence` has no 'sequencse'\n  Did you mean 'sequences'"),
        ("divergence: {sequences: many}", "s.yaml:2: sequences must be a whole number, not 'many'"),
        ("divergence: {top: 0}", "s.yaml:2: top must be at least 1, not 0"),
        ("divergence: {dtype: float8}", "unknown dtype 'float8'"),
        ("divergence: {ridge: 1}", "`divergence` has no 'ridge'"),
    ],
)
def test_wrong_sections(text, message):
    with pytest.raises(RequestError) as caught:
        read(f"tasks: [exact:dev.jsonl]\n{text}\n")
    assert message in str(caught.value)


def test_scores_need_tasks_and_proxies_do_not():
    with pytest.raises(RequestError, match="no tasks to score candidates on"):
        read("trials: 3\n")
    assert read("objective: proxy:survival\n").tasks == ()


def test_what_is_said_of_prompts():
    found = read("objective: proxy:kl\nprompts: {rev: 'dev.jsonl:rev', cnt: cnt.txt}\ndivergence: {top: 4}\n")
    assert found.prompts == {"rev": "dev.jsonl:rev", "cnt": "cnt.txt"}
    # Nothing is fitted, so no prompt need be held out.
    assert (found.divergence.top, found.divergence.sequences, found.divergence.held_out) == (4, 64, 0)
    assert found.needs_prompts and not read("objective: proxy:survival\n").needs_prompts


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompts": ["a.jsonl"]}, "prompts map each expert to its data"),
        ({"prompts": {"rev": 3}}, "prompts map each expert to its data"),
        ({"divergence": 3}, "divergence is a mapping, not 3"),
    ],
)
def test_what_python_may_give(given, message):
    with pytest.raises(RequestError, match=message):
        read("objective: proxy:kl\nprompts: {rev: a.jsonl}\n", **given)
