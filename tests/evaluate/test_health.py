import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.generate import Sample
from rlmerge.evaluate.health import Health, Histogram, Length, ModelHealth, health, loops, repeated_share
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import load
from support.checkpoints import BASE, PROMPTS, broken

RL = BASE.parent / "rl-rev"
VOCABULARY = read_vocabulary(BASE)


class Recited:
    """A generator that gives the same outputs whatever the model."""

    def __init__(self, texts):
        self.texts, self.closed = texts, False

    def generate(self, model, prompts, sampling):
        return [[self.sample(prompt, text) for text in self.texts] for prompt in prompts]

    def sample(self, prompt, text):
        return Sample(prompt, text.rstrip("$"), tuple(VOCABULARY[c] for c in text), text.endswith("$"))

    def close(self):
        self.closed = True


def log_softmax(rows):
    rows = rows.astype(np.float64)
    return (
        rows - np.log(np.exp(rows - rows.max(-1, keepdims=True)).sum(-1, keepdims=True)) - rows.max(-1, keepdims=True)
    )


def by_hand(prompt, texts, path, other):
    """Mean entropy and mean KL over all positions, one full forward pass for each position."""
    entropies, divergences = [], []
    for text in texts:
        for end in range(len(text)):
            ids = np.array([[VOCABULARY[c] for c in prompt + text[:end]]])
            p, q = (log_softmax(load(model).logits(ids)[0, -1]) for model in (path, other))
            entropies.append(-(np.exp(p) * p).sum())
            divergences.append((np.exp(p) * (p - q)).sum())
    return np.mean(entropies), np.mean(divergences)


def test_figures_worked_by_hand():
    # Three outputs at a cap of 12: a loop, a text that stops, and the cap without a loop.
    texts = ["12" + "a" * 10, "abcabcabc$", "0123456789ab"]
    generator = Recited(texts)
    found = health({"base": BASE, "rl": RL}, ["Rabc="], generator=generator, max_new_tokens=12, samples=3)
    assert generator.closed
    base, rl = found.models
    assert (found.prompts, found.samples, found.max_new_tokens) == (1, 3, 12)
    assert base.length_cap_repetition == pytest.approx(1 / 3) and base.stop_rate == pytest.approx(1 / 3)
    # 12aa 2aaa aaaa·7: 6 of 9; half of abcabcabc (its end is no part of it); 0 of 9.
    assert base.seq_rep_4 == pytest.approx((6 / 9 + 0.5 + 0) / 3)
    assert base.length == Length(mean=pytest.approx(34 / 3), p10=pytest.approx(10.4), p50=12, p90=12, max=12)
    assert base.histogram.edges == tuple(range(1, 14)) and base.histogram.counts == (0,) * 9 + (1, 0, 2)
    # float32 logits; two orders of summation.
    entropy, divergence = by_hand("Rabc=", texts, BASE, RL)
    assert base.entropy == pytest.approx(entropy, abs=1e-5)
    assert base.kl_to == {"rl": pytest.approx(divergence, abs=1e-5)} and divergence > 0.01
    entropy, divergence = by_hand("Rabc=", texts, RL, BASE)
    assert rl.entropy == pytest.approx(entropy, abs=1e-5)
    assert rl.kl_to == {"base": pytest.approx(divergence, abs=1e-5)}


def test_plain_data_as_reports_read_it():
    model = ModelHealth(
        "m", 0.0, 0.5, 1.0, Length(2.0, 1.0, 2.0, 3.0, 3), Histogram((1, 2, 9), (1, 1)), 0.25, {"a": 0.5, "b": math.inf}
    )
    assert Health(2, 1, 8, 1.0, (model,)).to_dict() == {
        "prompts": 2,
        "samples": 1,
        "max_new_tokens": 8,
        "temperature": 1.0,
        "models": [
            {
                "name": "m",
                "length_cap_repetition": 0.0,
                "seq_rep_4": 0.5,
                "stop_rate": 1.0,
                "length": {"mean": 2.0, "p10": 1.0, "p50": 2.0, "p90": 3.0, "max": 3},
                "histogram": {"edges": [1, 2, 9], "counts": [1, 1]},
                "entropy": 0.25,
                "kl_to": {"a": 0.5, "b": None},
            }
        ],
    }


def test_real_models_write_for_themselves():
    found = health({"base": BASE, "rl": RL, "again": BASE}, PROMPTS, references=["base"], samples=3, max_new_tokens=50)
    base, rl, again = found.models
    assert "base" not in base.kl_to and rl.kl_to.keys() == {"base"} and again.kl_to == {"base": 0.0}
    assert base.stop_rate == 1.0 and sum(base.histogram.counts) == 9
    # 50 tokens in at most 20 bins: three lengths each, and what is left in the last.
    assert base.histogram.edges[:3] == (1, 4, 7) and base.histogram.edges[-2:] == (49, 51)
    assert health({"base": BASE}, PROMPTS, references=[], samples=3, max_new_tokens=50).models[0].kl_to == {}
    json.dumps(found.to_dict(), allow_nan=False)


def test_torch_is_not_needed_for_small_models():
    code = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from pathlib import Path
from rlmerge.evaluate.health import health
print(health({{"base": Path({str(BASE)!r})}}, ["Rabc="], max_new_tokens=8).models[0].stop_rate)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1.0\n", done.stderr


def test_other_models_are_measured_in_transformers(tmp_path):
    pytest.importorskip("transformers")
    from support import tiny

    other = tiny.llama()
    other.lm_head.weight.data.mul_(2)
    models = {
        "base": tiny.save(tmp_path / "base", tiny.llama(), chat=True),
        "other": tiny.save(tmp_path / "other", other, chat=True),
    }
    found = health(models, ["1+1=", "abc"], max_new_tokens=16, samples=2, chat=True, device="cpu")
    base, other = found.models
    assert 0 < base.entropy < math.log(len(tiny.VOCABULARY))
    assert base.kl_to["other"] > 0 and other.kl_to["base"] > 0 and sum(base.histogram.counts) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "there are no prompts"),
        ({"prompts": ["Rabc=", "é"]}, "no token for 'é'"),
        ({"models": {}}, "there are no models"),
        ({"references": ["bsae"]}, "unknown reference 'bsae'"),
        ({"max_new_tokens": 7}, "max_new_tokens must be at least 8, not 7"),
        ({"chat": True}, "no chat template"),
    ],
)
def test_bad_requests_are_refused(change, message):
    with pytest.raises(RequestError, match=message):
        options = {"models": {"base": BASE}, "prompts": PROMPTS, "max_new_tokens": 8, **change}
        health(options.pop("models"), options.pop("prompts"), **options)


def test_another_vocabulary_has_no_divergence(tmp_path):
    for file in RL.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    models = {"base": BASE, "foreign": tmp_path}
    with pytest.raises(RequestError, match=r"foreign: KL to it is undefined(?s:.*)tokenizer of base"):
        health(models, PROMPTS, max_new_tokens=8)
    assert len(health(models, PROMPTS, references=[], max_new_tokens=8).models) == 2


def test_outputs_without_token_ids_are_refused():
    class Server(Recited):
        def sample(self, prompt, text):
            return Sample(prompt, text, (), True)

    with pytest.raises(RequestError, match="needs their tokens"):
        health({"base": BASE}, PROMPTS, generator=Server(["abc"]), max_new_tokens=8)


def test_a_broken_model_is_named(tmp_path):
    with pytest.raises(RunError, match="logits are NaN") as error:
        health({"base": BASE, "nan": broken(tmp_path)}, PROMPTS, max_new_tokens=8)
    assert error.value.where == str(tmp_path)


def test_models_too_large_for_numpy_give_the_same_figures_in_transformers(monkeypatch):
    pytest.importorskip("transformers")
    options = {"prompts": PROMPTS, "max_new_tokens": 10, "samples": 2}
    small = health({"base": BASE, "rl": RL}, **options).to_dict()
    monkeypatch.setattr("rlmerge.evaluate.health.MAX_PARAMETERS", 600_000)
    large = health({"base": BASE, "rl": RL}, device="cpu", **options).to_dict()
    for mine, theirs in zip(small["models"], large["models"], strict=True):
        # float32 logits of two programs; the samples are the same.
        for figure in ("entropy", "kl_to"):
            assert theirs.pop(figure) == pytest.approx(mine.pop(figure), abs=1e-5)
        assert mine == theirs


def test_loops_worked_by_hand():
    assert loops(tuple("xy" + "a" * 8))
    assert not loops(tuple("xy" + "a" * 7))
    assert loops(tuple("x" + "abc" * 8))
    assert not loops(tuple("x" + "abc" * 7 + "ab"))
    # Cut in the middle of a copy it is still a loop, of "cab", and needs 8 whole copies of that.
    assert loops(tuple("c" + "abc" * 8 + "ab"))
    assert not loops(tuple("abc" * 8 + "d"))
    assert not loops(()) and not loops(tuple("abcdefgh"))
    assert loops(tuple("abab"), times=2) and not loops(tuple("abba"), times=3)


@given(head=st.text("ab", max_size=5), gram=st.text("ab", min_size=1, max_size=4), copies=st.integers(1, 4))
def test_loops_finds_what_counting_finds(head, gram, copies):
    text = head + gram * copies
    counted = any(text.endswith(text[-n:] * 3) for n in range(1, len(text) + 1))
    assert loops(tuple(text), times=3) == counted


def test_repeated_share_worked_by_hand():
    # abcabcabc holds abca bcab cabc abca bcab cabc: three of six are repetitions.
    assert repeated_share(tuple("abcabcabc")) == 0.5
    assert repeated_share(tuple("aaaaaaa")) == 0.75
    assert repeated_share(tuple("abcdefg")) == 0.0
    assert repeated_share(tuple("aaa")) == 0.0
    assert repeated_share(tuple("abab"), n=2) == 1 - 2 / 3
