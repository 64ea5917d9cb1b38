import shutil
from pathlib import Path

import pytest

from rlmerge.errors import CheckpointError, RequestError
from rlmerge.evaluate.subjects import open_subjects

MODELS = Path(__file__).parents[2] / "examples" / "checkpoints"


def test_roles_and_names():
    subjects = open_subjects(MODELS / "base", [MODELS / "rl-rev"], [MODELS / "rl-cnt"])
    assert [(subject.name, subject.role) for subject in subjects] == [
        ("base", "base"),
        ("rl-rev", "expert"),
        ("rl-cnt", "merge"),
    ]


def test_a_model_given_twice_is_refused():
    with pytest.raises(RequestError, match="given twice, as base and as merge"):
        open_subjects(MODELS / "base", [MODELS / "rl-rev"], [MODELS / "rl-rev" / ".." / "base"])


def test_no_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such directory"):
        open_subjects(MODELS / "base", [], [tmp_path / "absent"])


def test_the_digest_is_of_weights_and_of_every_file_that_decides_scores(tmp_path):
    def digest(name):
        return open_subjects(tmp_path / name, [], [])[0].digest

    for name in ("a", "b", "c", "d"):
        shutil.copytree(MODELS / "base", tmp_path / name)
    (tmp_path / "b" / "training_log.txt").write_text("changes no score")
    (tmp_path / "c" / "generation_config.json").write_text('{"eos_token_id": 2}')
    shutil.copy(MODELS / "rl-rev" / "model.safetensors", tmp_path / "d" / "model.safetensors")
    assert digest("a") == digest("b")
    assert len({digest("a"), digest("c"), digest("d")}) == 3
