import math

import numpy as np
import pytest

from rlmerge.inspection import lineage
from rlmerge.inspection.evidence import Difference
from support.evidence import evidence


def test_an_expert_that_is_the_base():
    found = lineage.equals_base(evidence(relative=(0.0, 0.01)))
    assert found is not None and found.level == "problem" and "e0 is the base" in found.title
    assert lineage.equals_base(evidence()) is None


def test_identical_experts():
    found = lineage.identical_experts(evidence(distance=0.0, jaccard=1.0))
    assert found is not None and "e0 = e1" in found.title
    assert lineage.identical_experts(evidence()) is None


@pytest.mark.parametrize(("size", "level"), [(0.1, None), (0.3, "warning"), (1.4, "problem")])
def test_wrong_base(size, level):
    found = lineage.wrong_base(evidence(relative=(0.01, size)))
    assert (found.level if found else None) == level
    if found:
        assert found.title.startswith("e1 does not look")
        assert found.figures == {"‖τ‖/‖θ₀‖ of e1": size}


def test_swapped_arguments():
    # The true base passed as e0, an expert given as base: τ0 = -d, τ1 = x - d, with d and x orthogonal of length 1.
    swapped = np.array([[1.0, 1.0], [1.0, 2.0]])
    found = lineage.swapped(evidence(relative=(1.0, math.sqrt(2)), gram=swapped))
    assert found is not None and found.level == "problem" and "e0 looks like the base" in found.title
    assert list(found.figures.values()) == pytest.approx([2 / 3])
    assert lineage.swapped(evidence(gram=np.eye(2))) is None


def test_partly_equal_training_is_not_taken_for_a_swap():
    assert lineage.swapped(evidence(gram=np.array([[1.0, 0.4], [0.4, 1.0]]))) is None


def test_vocabulary_and_chat_template():
    token = Difference("e0", "vocabulary", "100 tokens against 99")
    template = Difference("e1", "chat template", "differs from the base's")
    assert lineage.vocabulary(evidence(identities=(token, template))).level == "problem"
    assert lineage.vocabulary(evidence(identities=(template,))).level == "info"
    assert lineage.vocabulary(evidence(identities=(Difference("e0", "config", "x"),))) is None


def test_config_and_structure():
    found = lineage.config(evidence(identities=(Difference("e0", "config", "rope_theta is 1, the base has 2"),)))
    assert "rope_theta" in found.text
    assert lineage.structure(evidence(structure=("e0 lacks 1 tensor (x) of the base",))).level == "warning"
    assert lineage.config(evidence()) is None and lineage.structure(evidence()) is None
