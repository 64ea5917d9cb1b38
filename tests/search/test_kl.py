"""``proxy:kl``: against KL of transformers' own logits, in memory and on disk; and what it refuses."""

import sys

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import rlmerge  # noqa: E402
from rlmerge.calibration import divergence  # noqa: E402
from rlmerge.errors import RequestError  # noqa: E402
from rlmerge.search import kl  # noqa: E402
from rlmerge.search.study import Study  # noqa: E402
from support import tiny  # noqa: E402

END = 2
"""The id of the tiny tokenizer's end, which the policy of every response writes."""


@pytest.fixture
def family(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny.family(tmp_path)
    torch.set_num_threads(before)


def search(**changes):
    """Only the weight of ``plus`` is free, at the base or at the expert itself."""
    weights = {"plus": {"choices": [0.0, 1.0]}, "letters": 0.0}
    return {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": name, "parameters": {"weight": weight}} for name, weight in weights.items()],
        "tune": {
            "objective": "proxy:kl",
            "prompts": {"plus": "plus.jsonl", "letters": "plus.jsonl"},
            "divergence": {"responses": "given"},
            "trials": 4,
            "round": 4,
            "sampler": "random",
            **changes,
        },
    }


def nats_a_token(expert, model):
    """KL(expert ‖ model) in float64 over the responses of plus.jsonl, straight from the logits of both."""
    ours, theirs = (transformers.AutoModelForCausalLM.from_pretrained(name).double() for name in (expert, model))
    tokens = tiny.tokenizer()
    total = count = 0
    for n in range(10):
        prompt = tokens(f"{n % 10}+{n // 2}=")["input_ids"]
        ids = [*prompt, *tokens(str(n % 10 + n // 2), add_special_tokens=False)["input_ids"], END]
        with torch.no_grad():
            p, q = (m(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for m in (ours, theirs))
        total += float((p.exp() * (p - q)).sum())
        count += len(ids) - len(prompt)
    return total / count


def test_it_is_minus_the_mean_over_experts(family):
    expected = {
        0.0: -(nats_a_token("plus", "base") + nats_a_token("letters", "base")) / 2,
        1.0: -nats_a_token("letters", "plus") / 2,
    }
    found = rlmerge.tune(search(), "found")
    assert {trial.parameters["weight of plus"] for trial in found.trials} == {0.0, 1.0}
    for trial in found.trials:
        # float32 sums of some 60 terms, and base + (expert − base) rounded to float32.
        assert trial.values[0] == pytest.approx(expected[trial.parameters["weight of plus"]], rel=1e-4)
        assert trial.proxies["proxy:kl"] == trial.values[0]
    assert found.trials[found.best].values[0] == max(trial.values[0] for trial in found.trials)
    assert any("a proxy, which is no score" in warning for warning in found.warnings)
    assert "a proxy, not a score" in found.objectives[0]["meaning"]
    page = (family / "found" / "report.html").read_text()
    # What was never scored has no items and no grid to explain.
    assert "computed from the merge, not from answers" in page and "tuned task arithmetic" not in page
    written = rlmerge.tune(search(hook="true {model}"), "written")
    assert [trial.values for trial in written.trials] == [trial.values for trial in found.trials]


def test_experts_are_heard_once_and_a_finished_study_hears_none(family, monkeypatch):
    heard = []
    listen = kl.listen
    monkeypatch.setattr(kl, "listen", lambda *given: heard.append(1) or listen(*given))
    sampled = {"max_new_tokens": 6}
    found = rlmerge.tune(search(round=2, divergence=sampled), "found")
    assert (len(found.trials), heard) == (4, [1])
    again = rlmerge.tune(search(round=2, divergence=sampled), "found")
    assert again.trials == found.trials and heard == [1]
    # Samples follow from the options, not from the seed of the sampler.
    other = rlmerge.tune(search(divergence=sampled, seed=5), "other")
    values = {trial.parameters["weight of plus"]: trial.values for trial in found.trials}
    assert all(values.get(t.parameters["weight of plus"], t.values) == t.values for t in other.trials)
    with pytest.raises(RequestError, match="holds a search with other prompts"):
        rlmerge.tune(search(divergence={"max_new_tokens": 7}), "found")


def test_what_a_kill_left_last_is_made_again(family, monkeypatch):
    """The killed trial is under way until others see that it is not, and the budget looks spent until then."""
    complete = Study.complete

    def killed(self, trial, values):
        if trial.number == 1:
            raise KeyboardInterrupt
        complete(self, trial, values)

    monkeypatch.setattr(Study, "complete", killed)
    with pytest.raises(KeyboardInterrupt):
        rlmerge.tune(search(trials=2, round=2), "found")
    monkeypatch.setattr(Study, "complete", complete)
    found = rlmerge.tune(search(trials=2, round=2), "found")
    assert [trial.state for trial in found.trials] == ["complete"] * 2


def test_a_candidate_whose_divergence_is_not_finite_fails_alone(family, monkeypatch):
    taken = []
    mean = divergence.mean_divergence

    def once(*given):
        taken.append(1)
        if len(taken) == 1:
            raise divergence._not_finite("the divergence", "plus")
        return mean(*given)

    monkeypatch.setattr(kl, "mean_divergence", once)
    asked = search()
    asked["models"][0]["parameters"] = {"weight": {"low": 0.0, "high": 1.0}}
    found = rlmerge.tune(asked, "found")
    assert [trial.state for trial in found.trials] == ["fail", *["complete"] * 3]
    assert "the divergence is not finite" in found.trials[0].error


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"plus": "plus.jsonl"}, "expert 'letters' has no prompts"),
        ({"plus": "plus.jsonl", "lettres": "plus.jsonl"}, "Did you mean 'letters'"),
        ({"plus": "plus.jsonl", "letters": "none.jsonl"}, "none.jsonl: cannot be read"),
    ],
)
def test_prompts_that_make_no_sense(family, prompts, message):
    with pytest.raises(RequestError, match=message):
        rlmerge.tune(search(prompts=prompts), "found")
    assert not (family / "found").exists()


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_without_the_extra_it_says_what_to_install(family, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RequestError, match=rf"'{name}', which is not installed\n  pip install 'rlmerge\[torch\]'"):
        rlmerge.tune(search(), "found")


def test_prompts_for_nothing_are_warned_of(toy):
    free = {"model": "e0", "parameters": {"weight": {"low": 0.0, "high": 1.0}}}
    asked = {"objective": "proxy:retention", "trials": 2, "prompts": {"e0": "a.jsonl"}}
    recipe = {"merge_method": "task_arithmetic", "base_model": "base", "models": [free, {"model": "e1"}]}
    found = rlmerge.tune({**recipe, "tune": asked}, "found")
    assert any("no objective is proxy:kl" in warning for warning in found.warnings)


def test_prompts_that_no_response_follows_leave_nothing_behind(family):
    """Responses that are to be given, and are not: it is only told when the experts are heard."""
    (family / "bare.jsonl").write_text('{"prompt": "1+1="}\n')
    with pytest.raises(RequestError, match="response"):
        rlmerge.tune(search(prompts={"plus": "bare.jsonl", "letters": "bare.jsonl"}), "deep/found")
    assert not (family / "deep").exists()
