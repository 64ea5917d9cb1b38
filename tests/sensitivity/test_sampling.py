from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.errors import RequestError  # noqa: E402
from rlmerge.language.data import Dataset, Example, read_data  # noqa: E402
from rlmerge.language.model import Causal  # noqa: E402
from rlmerge.sensitivity.options import SensitivityOptions  # noqa: E402
from rlmerge.sensitivity.sampling import make_reward, sample_responses  # noqa: E402
from support import tiny  # noqa: E402

EXAMPLES = [Example("f:1", "1+1=", answer="2"), Example("f:2", "a", answer="b")]


def causal(model=None) -> Causal:
    return Causal(Path("model"), model or tiny.llama(), tiny.tokenizer(), torch.device("cpu"), (2,))


def sample(examples=EXAMPLES, *, model=None, keep=None, **options):
    options = SensitivityOptions(**{"mode": "true", "max_new_tokens": 8, **options})
    return sample_responses(causal(model), examples, options, keep)


def test_samples_are_seeded_and_leave_the_callers_random_state_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sample(samples=3, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(first.sequences) == 6
    assert first == sample(samples=3, seed=5) == sample(samples=3, seed=5, batch_size=4) != sample(samples=3, seed=6)


def test_responses_follow_their_prompts_and_stop_at_the_end_token():
    encoded = sample(samples=20, batch_size=7)
    ended = 0
    for index, sequence in enumerate(encoded.sequences):
        example = EXAMPLES[index // 20]
        assert sequence.where == example.where
        prompt = "".join(tiny.VOCABULARY[i] for i in sequence.ids[1 : sequence.start])
        assert prompt == example.prompt
        response = sequence.ids[sequence.start :]
        assert 1 <= len(response) <= 8 and 2 not in response[:-1]
        ended += response[-1] == 2
        assert response[-1] == 2 or len(response) == 8
    assert 0 < ended < 40
    assert encoded.truncated == 40 - ended


def test_draws_from_the_models_own_distribution_whatever_its_sampling_defaults():
    model = tiny.llama()
    model.generation_config.temperature, model.generation_config.do_sample = 0.01, True
    model.generation_config.top_k, model.generation_config.repetition_penalty = 1, 5.0
    draws = 4000
    encoded = sample(EXAMPLES[:1], model=model, samples=draws, max_new_tokens=1, batch_size=500)
    found = Counter(sequence.ids[-1] for sequence in encoded.sequences)
    prompt = torch.tensor([tiny.tokenizer()("1+1=")["input_ids"]])
    with torch.no_grad():
        expected = torch.softmax(model(input_ids=prompt).logits[0, -1], 0).tolist()
    for token, probability in enumerate(expected):
        # Five binomial standard deviations: with 32 tokens, a false alarm once in 50 000 seeds, and the seed is fixed.
        deviation = (draws * probability * (1 - probability)) ** 0.5
        assert abs(found[token] - draws * probability) <= 5 * deviation


def test_lengths_stay_within_the_limit_and_full_prompts_are_dropped():
    encoded = sample([*EXAMPLES, Example("f:3", "123456789")], samples=10, max_length=7, batch_size=30)
    assert encoded.dropped == 1
    assert max(len(s.ids) for s in encoded.sequences) == 7
    with pytest.raises(RequestError, match="none of the 1 prompts fits 3 tokens"):
        sample([Example("f:3", "123456789")], max_length=3)


def test_only_rewarded_samples_are_kept():
    kept = sample(keep=lambda example, text: "1" in text, mode="reward", reward="regex:1", samples=30, batch_size=10)
    assert 0 < len(kept.sequences) < 60
    one = tiny.VOCABULARY.index("1")
    assert all(one in s.ids[s.start :] for s in kept.sequences)


def test_a_reward_that_is_never_true_says_so_with_an_example():
    with pytest.raises(RequestError, match="none of the 2 samples earned the reward 'exact'") as error:
        sample(keep=lambda example, text: False, mode="reward", reward="exact")
    assert "f:1: wanted '2', the model wrote" in str(error.value)


EXAMPLE = Example("f:1", "1+1=", answer="2")
DATA = Dataset((EXAMPLE,), "digest")


def test_exact_ignores_blanks_around_the_answer_only():
    reward = make_reward("exact", DATA)
    assert reward(EXAMPLE, " 2\n")
    assert not reward(EXAMPLE, "22") and not reward(EXAMPLE, "the answer is 2")


def test_a_pattern_without_group_is_the_reward_itself():
    reward = make_reward("regex:^the .* is", Dataset((Example("w", "p"),), ""))
    assert reward(EXAMPLE, "the answer is 7") and not reward(EXAMPLE, "7")


def test_a_patterns_group_must_equal_the_answer_in_its_last_occurrence():
    reward = make_reward(r"regex:#### (-?\d+)", DATA)
    assert (
        reward(EXAMPLE, "#### 7 no, #### 2") and not reward(EXAMPLE, "#### 2 no, #### 7") and not reward(EXAMPLE, "2")
    )


def test_reasoning_gym_verifies_the_tagged_answer():
    pytest.importorskip("reasoning_gym")
    data = read_data("reasoning-gym:chain_sum", 2, 0)
    reward = make_reward("reasoning-gym", data)
    example = data.examples[0]
    assert reward(example, f"<answer>1</answer> or rather <answer>{example.answer}</answer>")
    assert reward(example, f" {example.answer}\n")
    assert not reward(example, "<answer>x</answer>")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("exakt", "Did you mean 'exact'"),
        ("regex:", "unknown reward"),
        ("regex:(", "bad pattern"),
        ("reasoning-gym", "needs data of a reasoning-gym task"),
    ],
)
def test_bad_specifications(spec, message):
    with pytest.raises(RequestError, match=message):
        make_reward(spec, DATA)


@pytest.mark.parametrize("spec", ["exact", "regex:(.)"])
def test_data_without_answers_is_refused_by_line(spec):
    with pytest.raises(RequestError, match=r"f:9: .* needs reference answers"):
        make_reward(spec, Dataset((EXAMPLE, Example("f:9", "p")), ""))
