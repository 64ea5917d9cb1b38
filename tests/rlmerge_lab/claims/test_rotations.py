"""The claims of the second edition on hand-made studies (tests/support/studies.py)."""

import pytest

from rlmerge_lab.claims import judge
from rlmerge_lab.claims.cells import Study
from rlmerge_lab.claims.rotations import best_on_dev
from support.studies import DRIFT, HIGH, LOW, SPLIT, second_edition, study


def verdicts(rows):
    return {verdict.key: verdict for verdict in judge(rows).verdicts}


def better(method, by=0.0):
    return {("rl", method, "tuned"): lambda seed: 0.5 + by + SPLIT[seed]}


def on_dev(rows, method, value):
    for row in rows["merges"]:
        if row["method"] == method:
            row["dev"] = value
    return rows


def test_entrywise_methods_are_represented_by_the_best_on_dev_whatever_test_says():
    rows = second_edition(gains=better("ties", 0.3))
    found = verdicts(on_dev(on_dev(rows, "ties", 0.1), "ram", 0.9))["entrywise"]
    assert found.decides[0].name == "gain kept, rl, tuned, ram − task_arithmetic"
    assert "The best of 2 on dev is ram." in found.control
    assert [figure.name for figure in found.beside] == ["gain kept, rl, tuned, ties − task_arithmetic"]


@pytest.mark.parametrize(
    ("gain", "outcome"),
    [
        (lambda seed: 0.3 + SPLIT[seed], "supported"),  # worse than task arithmetic
        (lambda seed: 0.5, "supported"),  # the same
        (lambda seed: 0.5 + SPLIT[seed], "not supported"),  # 3.0 [1.0, 5.0] points better, beyond the margin of 2
        (lambda seed: 0.51 + SPLIT[seed] / 1000, "supported"),  # better by half the margin, for certain
        (lambda seed: 0.47 + 4 * (SPLIT[seed] - 0.03) + 0.03, "undecided here"),  # 0 ± 7.9 points
    ],
)
def test_not_beating_is_a_claim_that_can_fail(gain, outcome):
    rows = second_edition(gains={("rl", "ram", "tuned"): gain})
    found = verdicts(on_dev(rows, "ram", 0.9))["entrywise"]
    assert found.outcome == outcome
    if outcome == "not supported":
        assert found.decides[0].bounds == (pytest.approx(LOW, abs=1e-7), pytest.approx(HIGH, abs=1e-7))
        assert found.reason == "The interval lies above 0 and reaches beyond the margin."


def test_rotations_are_published_ones():
    rows = second_edition(gains=better("covariance", 0.4) | better("tsv", 0.1))
    found = verdicts(rows)["rotations"]
    assert found.decides[0].name == "gain kept, rl, tuned, tsv − task_arithmetic" and found.outcome == "supported"
    assert not any("covariance" in figure.name for figure in (*found.decides, *found.beside))


def test_the_own_method_against_each_rival():
    found = verdicts(second_edition(gains=better("covariance") | better("actmat", 0.2)))
    outcomes = {key: str(found[f"own-{key}"].outcome) for key in ("arithmetic", "tsv", "regmean", "actmat")}
    assert outcomes.pop("actmat") == "not supported" and set(outcomes.values()) == {"supported"}
    assert found["own-arithmetic"].decides[0].differences == pytest.approx(SPLIT)


def test_the_better_form_of_regmean_is_the_rival():
    rows = on_dev(second_edition(gains=better("covariance")), "regmean:sum", 0.95)
    found = verdicts(rows)["own-regmean"]
    assert found.decides[0].name.endswith("covariance − regmean:sum")
    assert [figure.name for figure in found.beside] == ["gain kept, rl, tuned, covariance − regmean"]
    assert best_on_dev(Study(rows), ()) is None


@pytest.mark.parametrize(
    ("tokens", "tested", "says"),
    [(None, False, "vocabulary is not known"), (49, False, "has 49 tokens"), (1000, True, ""), (49152, True, "")],
)
def test_a_real_vocabulary_has_a_thousand_tokens(tokens, tested, says):
    found = verdicts(second_edition(gains=better("covariance"), vocabulary=tokens))["own-vocabulary"]
    assert found.tested is tested and (not says or says in found.reason)
    assert found.outcome == ("supported" if tested else "undecided here")


def test_beyond_layer_0():
    found = verdicts(second_edition(gains=better("covariance", 0.1)))["own-layers"]
    # All but layer 0 is worth nine tenths of 0.1 + SPLIT, layer 0 alone one tenth.
    assert found.decides[0].differences == pytest.approx([0.9 * (0.1 + gap) for gap in SPLIT])
    assert found.beside[0].differences == pytest.approx([0.1 * (0.1 + gap) for gap in SPLIT])
    assert found.outcome == "supported"
    none = verdicts(second_edition())["own-layers"]
    assert none.outcome == "undecided here" and "no advantage" in none.reason


def test_drift_is_read_on_held_tasks_and_without_them_outside_of_pairs():
    off = {("covariance", "tuned"): lambda seed: -0.01}
    rows = second_edition(off=off)
    found = verdicts(rows)["own-drift"]
    assert found.decides[0].name.startswith("change of pass@1 on held tasks, rl, tuned")
    assert found.decides[0].differences == pytest.approx([0.01] * 5) and found.outcome == "supported"
    assert found.decides[0].a == pytest.approx(-0.01 + sum(DRIFT) / 50)
    for row in rows["merges"]:
        if row["set"] == "all":
            del row["off_task"]
    assert verdicts(rows)["own-drift"].decides[0].name.startswith("change of pass@1 on tasks outside a pair")
    assert not verdicts(study())["own-drift"].tested


def test_new_arms():
    """As supports.studies has it, all arms but rl and sft have updates of 0.05 and conflict alike."""
    rows = second_edition(
        arms=("rl", "rl-constant", "rl-kl"),
        gains={("rl-constant", "linear", "default"): lambda seed: 0.5 - SPLIT[seed]}
        | {("rl-kl", method, "tuned"): lambda seed: 0.5 + SPLIT[seed] for method in ("task_arithmetic", "covariance")},
    )
    found = verdicts(rows)
    size, gain = found["constant-advantage"].decides
    assert size.differences == pytest.approx([-0.03] * 5) and gain.differences == pytest.approx(SPLIT)
    assert found["constant-advantage"].outcome == "supported"
    # Two of nine methods.
    assert found["kl-penalty"].decides[0].differences == pytest.approx([gap * 2 / 9 for gap in SPLIT])
