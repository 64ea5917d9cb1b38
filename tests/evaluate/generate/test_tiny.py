from collections import Counter
from itertools import chain

import numpy as np
import pytest

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.exact import read_items, score
from rlmerge.evaluate.generate import Sampling
from rlmerge.evaluate.generate.tiny import TinyGenerator, choose, same_length
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import load
from support.checkpoints import BASE, EXAMPLES, PROMPTS, broken


def generate(model=BASE, prompts=PROMPTS, **changes):
    return TinyGenerator().generate(model, prompts, Sampling(**{"max_new_tokens": 8, **changes}))


def test_a_draw_picks_where_the_cumulative_probability_passes_it():
    logits = np.log(np.array([[0.25, 0.5, 0.0, 0.25]] * 6, np.float64) + 1e-300)
    logits[:, 2] = -np.inf
    draws = np.array([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2.0**-24])
    assert choose(logits, 1.0, draws).tolist() == [0, 0, 1, 1, 3, 3]
    assert choose(logits, 0.0, draws).tolist() == [1] * 6
    # At temperature 1/2 probabilities are squared: 1/6, 4/6, 0, 1/6.
    assert choose(logits, 0.5, np.array([0.16, 0.17, 0.83, 0.84, 0.0, 0.5])).tolist() == [0, 1, 1, 3, 0, 1]


def test_a_token_of_probability_zero_is_never_chosen():
    logits = np.array([[-np.inf, 0.0, -np.inf]])
    assert choose(logits, 1.0, np.array([0.0])).tolist() == [1]
    assert choose(logits, 1.0, np.array([1 - 2.0**-24])).tolist() == [1]


def test_lengths_are_grouped_and_cut_into_batches():
    assert list(same_length([3, 5, 3, 4])) == [[0, 2], [1], [3]]
    batches = list(same_length([1] * 600))
    assert [len(batch) for batch in batches] == [256, 256, 88] and list(chain(*batches)) == list(range(600))


def test_the_share_of_right_samples_is_the_exact_probability():
    item = read_items(EXAMPLES / "data" / "dev.jsonl")[600]
    exact = score(load(BASE), [item], read_vocabulary(BASE)).probability[0]
    draws = 600
    found = Counter(s.stopped and s.text in item.answers for s in generate(prompts=[item.prompt], samples=draws)[0])
    assert 0.05 < exact < 0.95
    # Four binomial standard deviations; the seed is fixed.
    assert abs(found[True] - draws * exact) < 4 * (draws * exact * (1 - exact)) ** 0.5


def test_a_prompt_gets_the_same_outputs_in_any_company():
    together = generate(samples=4)
    for prompt, samples in zip(PROMPTS, together, strict=True):
        assert generate(prompts=[prompt], samples=4) == [samples]
    assert generate(prompts=PROMPTS[::-1], samples=4) == together[::-1]
    assert [row[:2] for row in together] == generate(samples=2)
    assert together != generate(samples=4, seed=1)


def test_an_output_ends_with_the_end_or_at_the_cap():
    samples = [sample for row in generate(samples=50, max_new_tokens=3) for sample in row]
    assert {sample.stopped for sample in samples} == {True, False}
    vocabulary = read_vocabulary(BASE)
    for sample in samples:
        spelled = "".join(
            "$" if token == 1 else c for token in sample.tokens for c, i in vocabulary.items() if i == token
        )
        assert spelled == sample.text + "$" * sample.stopped
        assert 1 not in sample.tokens[:-1] and len(sample.tokens) <= 3
        assert sample.stopped or len(sample.tokens) == 3


def test_greedy_outputs_are_the_likeliest_tokens():
    model = load(BASE)
    vocabulary = read_vocabulary(BASE)
    for (sample,), prompt in zip(generate(temperature=0.0), PROMPTS, strict=True):
        ids = np.array([[vocabulary[c] for c in prompt]])
        assert sample.tokens == tuple(model.greedy(ids, len(sample.tokens))[0]) and sample.stopped


def test_bad_input_is_refused():
    with pytest.raises(RequestError, match="no token for 'z'"):
        generate(prompts=["abz"])
    with pytest.raises(RequestError, match="no chat template"):
        generate(chat=True)


def test_a_model_whose_logits_are_nan_is_named(tmp_path):
    with pytest.raises(RunError, match="logits are NaN") as error:
        generate(broken(tmp_path))
    assert error.value.where == str(tmp_path)
