import json
import warnings

import numpy as np
import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.exact import read_items, score
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import TinyLlama, load
from rlmerge_lab.study.scoring import MIN_GAIN, Evaluation, Reference, goal
from support.laboratory import BASE, CHECKPOINTS

TEST = CHECKPOINTS / "data" / "test.jsonl"


def test_all_denominators_by_hand():
    reference = Reference(base={"a": 0.25, "b": 0.75}, expert={"a": 0.75, "b": 1.0})
    found = reference.outcome({"a": 0.5, "b": 1.0})
    # a keeps 0.25 of 0.5 and 2/3 of the expert's score, b all of its 0.25: half of 0.75 and not the mean of 1/2 and 1.
    assert found.kept == {"a": 0.5, "b": 1.0}
    assert found.gain_kept == pytest.approx(0.5 / 0.75)
    assert found.retention == pytest.approx((2 / 3 + 1) / 2)
    assert found.degradation == pytest.approx((-1 / 3 + 0) / 2)


def test_tasks_count_by_what_their_expert_gained():
    reference = Reference(base={"a": 0.5, "b": 0.0}, expert={"a": 0.625, "b": 0.875})
    found = reference.outcome({"a": 0.625, "b": 0.0})
    assert found.kept == {"a": 1.0, "b": 0.0}
    assert found.gain_kept == 0.125  # of 0.125 + 0.875, and not the mean 0.5 of both shares


def test_a_merge_may_pass_its_experts_and_fall_below_the_base():
    reference = Reference(base={"a": 0.5}, expert={"a": 0.75})
    assert reference.outcome({"a": 1.0}).gain_kept == 2.0
    assert reference.outcome({"a": 0.25}).gain_kept == -1.0


def test_no_share_is_taken_of_a_gain_that_is_none():
    reference = Reference(base={"a": 0.5, "b": 0.5}, expert={"a": 0.5 + MIN_GAIN / 2, "b": 0.75})
    found = reference.outcome({"a": 0.5, "b": 0.625})
    assert found.kept == {"a": None, "b": 0.5}
    assert found.gain_kept == pytest.approx(0.125 / (0.25 + MIN_GAIN / 2))
    lost = Reference(base={"a": 0.5}, expert={"a": 0.25}).outcome({"a": 0.5})
    assert lost.gain_kept is None
    assert lost.retention == 2.0


def test_an_expert_that_is_never_right_has_no_retention():
    found = Reference(base={"a": 0.0}, expert={"a": 0.0}).outcome({"a": 0.5})
    assert (found.retention, found.degradation, found.gain_kept) == (None, None, None)


def test_tuning_falls_back_on_plain_scores_where_no_expert_gained():
    reference = Reference(base={"a": 0.5, "b": 0.5}, expert={"a": 0.5, "b": 0.5})
    merged = {"a": 0.5, "b": 0.75}
    assert goal(reference.outcome(merged), merged) == 0.625
    assert goal(Reference({"a": 0.5}, {"a": 1.0}).outcome({"a": 0.75}), {"a": 0.75}) == 0.5


def test_an_exam_takes_the_first_items_of_each_task_in_turn():
    items = Evaluation.of(TEST, 3).items(("shift", "rev"))
    every = read_items(TEST)
    assert items == tuple(item for task in ("shift", "rev") for item in [one for one in every if one.task == task][:3])


def test_scores_are_means_of_the_exact_ones():
    model = load(BASE)
    evaluation = Evaluation.of(TEST, 5)
    sampled, greedy = evaluation.passes(model, BASE, ("cnt", "rev"))
    for task in ("cnt", "rev"):
        found = score(model, evaluation.items((task,)), read_vocabulary(BASE))
        # Batches of other shapes round differently: probabilities agree to float32 precision.
        assert sampled[task] == pytest.approx(float(np.mean(found.probability)), rel=1e-5)
        assert greedy[task] == float(np.mean(found.greedy))


def test_weights_that_overflow_are_never_right():
    model = load(BASE)
    broken = TinyLlama(model.config, {name: np.full_like(array, np.inf) for name, array in model.weights.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Evaluation.of(TEST, 2).passes(broken, BASE, ("rev",))[0] == {"rev": 0.0}


def test_exams_are_known_by_content_and_not_by_place(tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(TEST.read_bytes())
    assert Evaluation.of(copy, 5).to_dict() == Evaluation.of(TEST, 5).to_dict()
    copy.write_text(json.dumps({"task": "rev", "prompt": "Rab=", "answer": "ba"}))
    assert Evaluation.of(copy, 5).to_dict() != Evaluation.of(TEST, 5).to_dict()
    with pytest.raises(RequestError, match="has no items of task 'cnt'"):
        Evaluation.of(copy, 5).items(("rev", "cnt"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RequestError, match="cannot be read") as caught:
        Evaluation.of(tmp_path / "none.jsonl", None)
    assert "rlmerge lab train" in str(caught.value)
