import math

import numpy as np
import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.exact import Item, read_items, score
from rlmerge.evaluate.landscape.scorers import CausalScorer, TinyScorer
from rlmerge.evaluate.landscape.weights import combine, read_weights
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import load
from support.checkpoints import BASE, EXAMPLES

ITEMS = [
    *read_items(EXAMPLES / "data" / "dev.jsonl")[::250],
    Item("many", "_____A29+58=", ("87", "8", "87", "9")),
    Item("many", "Rab=", ("ba",)),
]
"""Ten real items, and two whose prompts and answers differ in length and number."""


def test_the_numpy_scorer_averages_over_the_items_of_each_task():
    expected = score(load(BASE), ITEMS, read_vocabulary(BASE))
    found = TinyScorer.of(BASE, ITEMS)(read_weights(BASE))
    assert list(found) == ["add", "sort", "rev", "cnt", "shift", "many"]
    for task, (value, loss) in found.items():
        own = expected.on(task)
        assert value == pytest.approx(own.probability.mean(), rel=1e-12)
        assert loss == pytest.approx(own.loss.mean(), rel=1e-12)


def test_transformers_gives_the_same_figures():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        small, large = TinyScorer.of(BASE, ITEMS), CausalScorer(BASE, ITEMS, device="cpu")
    finally:
        torch.set_num_threads(threads)
    expert = read_weights(EXAMPLES / "rl-rev")
    for weights in (expert, combine([(0.5, expert), (0.5, read_weights(BASE))])):
        expected, found = small(weights), large(weights)
        for task in expected:
            # float32 logits of two programs.
            np.testing.assert_allclose(found[task], expected[task], rtol=1e-4, atol=1e-6)


def test_prompts_and_answers_are_asked_as_the_model_is_used_to(tmp_path):
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from support import tiny

    model = tiny.llama()
    tiny.save(tmp_path, model, chat=True)
    words = {token: index for index, token in enumerate(tiny.VOCABULARY)}
    plain = [words["<s>"], *(words[c] for c in "1+1=")]
    chat = [words[t] for t in ("<s>", *"? 1+1=", "</s>", *"  ", "<s>", *"a ")]
    answer = [words["2"], words["</s>"]]
    for asked, start in ((False, plain), (True, chat)):
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([start + answer])).logits[0].double(), -1)
        expected = -float(logs[len(start) - 1, answer[0]] + logs[len(start), answer[1]])
        scorer = CausalScorer(tmp_path, [Item("t", "1+1=", ("2",))], device="cpu", chat=asked)
        value, loss = scorer(read_weights(tmp_path))["t"]
        assert loss == pytest.approx(expected, rel=1e-5) and value == pytest.approx(math.exp(-expected), rel=1e-5)


def test_weights_that_overflow_have_no_loss_instead_of_an_error():
    weights = dict(read_weights(BASE))
    weights["model.norm.weight"] = np.full(128, np.inf, np.float32)
    value, loss = TinyScorer.of(BASE, ITEMS[:1])(weights)["add"]
    assert math.isnan(value) and math.isnan(loss)


def test_bad_input_is_refused(tmp_path):
    weights = dict(read_weights(BASE))
    scorer = TinyScorer.of(BASE, ITEMS)
    del weights["model.norm.weight"]
    with pytest.raises(RequestError, match=r"model.norm.weight: should be of shape \[128\], found nothing"):
        scorer(weights)
    with pytest.raises(RequestError, match="no items to score"):
        TinyScorer.of(BASE, [])
    with pytest.raises(RequestError, match="no token for 'z'"):
        TinyScorer.of(BASE, [Item("t", "z", ("a",))])(read_weights(BASE))
    pytest.importorskip("transformers")
    with pytest.raises(RequestError, match="no items to score"):
        CausalScorer(BASE, [], device="cpu")
    with pytest.raises(RequestError, match=r"model.norm.weight: the weights lack this tensor"):
        CausalScorer(BASE, ITEMS, device="cpu")(weights)
