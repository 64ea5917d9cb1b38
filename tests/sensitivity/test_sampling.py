from __future__ import annotations

from collections import Counter

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.errors import RequestError  # noqa: E402
from rlmerge.sensitivity.data import Example  # noqa: E402
from rlmerge.sensitivity.model import CausalModel  # noqa: E402
from rlmerge.sensitivity.options import SensitivityOptions  # noqa: E402
from rlmerge.sensitivity.sampling import sample_responses  # noqa: E402

from . import tiny  # noqa: E402

EXAMPLES = [Example("f:1", "1+1=", answer="2"), Example("f:2", "a", answer="b")]


def causal(model=None) -> CausalModel:
    return CausalModel(model or tiny.llama(), tiny.tokenizer(), torch.device("cpu"), {}, ())


def sample(examples=EXAMPLES, *, model=None, keep=None, **options):
    options = SensitivityOptions(**{"mode": "true", "max_new_tokens": 8, **options})
    return sample_responses(causal(model), examples, options, keep)


def test_samples_are_seeded_and_leave_the_callers_random_state_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sample(samples=3, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(first.sequences) == 6
    assert first == sample(samples=3, seed=5) != sample(samples=3, seed=6)


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
