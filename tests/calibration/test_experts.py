import json
import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rlmerge.calibration.experts import batches, check_causal, fitting_share, hear, next_logits, padded, voice  # noqa: E402
from rlmerge.calibration.options import CalibrationOptions  # noqa: E402
from rlmerge.checkpoint.model import open_checkpoint  # noqa: E402
from rlmerge.errors import RequestError  # noqa: E402
from rlmerge.language.data import read_data  # noqa: E402
from rlmerge.language.model import Causal, find_device, load_causal  # noqa: E402
from rlmerge.language.tokens import TokenSequence  # noqa: E402
from support import tiny  # noqa: E402

VOCABULARY = len(tiny.VOCABULARY)


@pytest.fixture
def causal(family):
    return load_causal(family / "base", find_device("cpu"))


@pytest.mark.parametrize(("count", "fitted"), [(80, 64), (40, 32), (200, 160), (5, 4), (4, 4), (1, 1)])
def test_the_same_share_is_held_out_of_short_data(count, fitted):
    """16 of 80: a fifth, rounded down."""
    assert fitting_share(count, CalibrationOptions()) == fitted


def test_a_prompt_is_always_left_to_fit_on():
    assert fitting_share(1, CalibrationOptions(sequences=1, held_out=1000)) == 1


def test_targets_are_the_models_own_distributions(causal):
    options = CalibrationOptions(max_new_tokens=5, sequences=4, held_out=0, samples=2)
    heard = hear(causal, read_data("letters.txt", 4, 0), options)
    assert len(heard.fitted) == 8 and heard.held_out == ()
    for target in heard.fitted:
        ids, start = target.sequence.ids, target.sequence.start
        with torch.no_grad():
            logits = causal.model(input_ids=torch.tensor([ids])).logits[0]
        expected = logits[start - 1 : len(ids) - 1].log_softmax(-1)
        assert target.tokens.tolist() == [list(range(VOCABULARY))] * (len(ids) - start)
        # One sequence alone and in a padded batch: float32 sums in another order.
        torch.testing.assert_close(target.logs, expected, atol=1e-5, rtol=1e-5)


def test_the_likeliest_tokens_are_told_apart_and_the_rest_add_up(causal):
    options = CalibrationOptions(max_new_tokens=5, sequences=4, held_out=0, top=3)
    for target in hear(causal, read_data("letters.txt", 4, 0), options).fitted:
        assert target.tokens.shape[1] == 3
        total = target.logs.exp().sum(-1) + target.rest.exp()
        torch.testing.assert_close(total, torch.ones_like(total))


def test_samples_follow_the_seed(causal):
    def ids(seed):
        options = CalibrationOptions(max_new_tokens=8, seed=seed, batch_size=3)
        return [target.sequence.ids for target in hear(causal, read_data("letters.txt", 8, 0), options).fitted]

    assert ids(0) == ids(0) and ids(0) != ids(1)


def test_given_responses_are_taken_as_they_are(causal):
    heard = hear(causal, read_data("plus.jsonl", 3, 0), CalibrationOptions(responses="given", held_out=0))
    # "<s>0+0=" and "0</s>"
    assert (heard.fitted[0].sequence.start, len(heard.fitted[0].sequence.ids)) == (5, 7)


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"prompt": "1+1="}, {"responses": "given"}, "the example has no response"),
        ({"prompt": "1+1="}, {"max_length": 3}, "none of the 1 prompts fits 3 tokens"),
        ({"prompt": ""}, {}, '"prompt" must be a non-empty string'),
        ({"messages": [{"role": "user", "content": "1"}]}, {}, "no chat template"),
    ],
)
def test_data_that_leave_nothing_to_compare_are_refused(causal, family, row, options, message):
    (family / "one.jsonl").write_text(json.dumps(row))
    with pytest.raises(RequestError, match=message):
        hear(causal, read_data("one.jsonl", 1, 0), CalibrationOptions(**options))


def test_prompts_that_leave_no_tokens_are_refused(causal, family):
    """A tokenizer that drops what it does not know, and puts nothing in front."""
    (family / "one.txt").write_text("something\n")
    silent = Causal(causal.path, causal.model, lambda text: {"input_ids": []}, causal.device, causal.ends)
    with pytest.raises(RequestError, match="none of the 1 prompts fits 2048 tokens"):
        hear(silent, read_data("one.txt", 1, 0), CalibrationOptions())


def test_batches_are_padded_on_the_right():
    sequences = [TokenSequence((5, 6, 7), 1, ""), TokenSequence((8,), 0, "")]
    ids, there = padded(sequences, "cpu")
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]] and there.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert [len(batch) for batch in batches(range(7), CalibrationOptions(batch_size=3))] == [3, 3, 1]


def test_logits_are_those_before_each_response_token(causal):
    sequences = [TokenSequence((1, 5, 6, 7), 2, ""), TokenSequence((1, 8), 1, "")]
    with torch.no_grad():
        found = next_logits(causal.model, sequences, causal.device)
    assert [tuple(each.shape) for each in found] == [(2, VOCABULARY), (1, VOCABULARY)]


def test_models_that_look_ahead_are_refused(causal):
    sequence = TokenSequence((1, 5, 6, 7), 2, "")
    check_causal(causal, sequence)

    class LooksAhead(torch.nn.Module):
        def forward(self, input_ids, **_):
            total = input_ids.sum(-1, keepdim=True)[..., None].expand(*input_ids.shape, VOCABULARY)
            return type("Output", (), {"logits": total.float()})

    ahead = Causal(causal.path, LooksAhead(), causal.tokenizer, causal.device, causal.ends)
    with pytest.raises(RequestError, match="the model is not causal"):
        check_causal(ahead, sequence)


def test_an_expert_ends_as_its_own_files_say(causal, family):
    (family / "plus" / "generation_config.json").write_text('{"eos_token_id": [7, 2]}')
    assert voice(causal, open_checkpoint(family / "plus")).ends == (7, 2)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (family / "plus" / file).unlink()
    assert voice(causal, open_checkpoint(family / "plus")) is causal
    shutil.rmtree(family / "plus")
