"""The shipped models score what their README says, digit for digit."""

import re
from pathlib import Path

import pytest

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.evaluate.exact import answer, read_items, score
from rlmerge.language.characters import read_vocabulary
from rlmerge.language.tiny import load

ROOT = Path(__file__).parents[2] / "examples" / "checkpoints"
TASKS = ("rev", "cnt", "shift", "add", "sort")
TABLE = {
    name: dict(zip(TASKS, cells.split(" | "), strict=False))
    for name, cells in re.findall(r"^\| ([\w-]+) \| (\d.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
}
ITEMS = read_items(ROOT / "data" / "test.jsonl")
VOCABULARY = read_vocabulary(ROOT / "base")


def test_the_table_lists_what_is_shipped():
    assert set(TABLE) == {path.name for path in ROOT.iterdir() if path.is_dir()} - {"data"}


@pytest.mark.parametrize("name", TABLE)
def test_every_model_opens_and_shares_the_base_shapes(name):
    base, model = open_checkpoint(ROOT / "base"), open_checkpoint(ROOT / name)
    assert {n: (t.shape, t.dtype) for n, t in model.tensors.items()} == {
        n: (t.shape, t.dtype) for n, t in base.tensors.items()
    }
    assert sum(t.numel for t in model.tensors.values()) == 607_104


@pytest.mark.parametrize(
    ("name", "task"), [("base", "add"), ("rl-rev", "rev"), ("rl-bf16-shift", "shift"), ("sft-matched-cnt", "cnt")]
)
def test_scores_are_those_of_the_table(name, task):
    items = [item for item in ITEMS if item.task == task]
    scores = score(load(ROOT / name), items, VOCABULARY)
    assert f"{scores.probability.mean():.3f} / {scores.greedy.mean():.3f}" == TABLE[name][task]


def test_greedy_score_is_whether_the_decoded_answer_is_right():
    model = load(ROOT / "rl-rev")
    items = [item for item in ITEMS if item.task == "rev"][:20]
    decoded = [answer(model, item.prompt, VOCABULARY) == item.answers[0] for item in items]
    assert score(model, items, VOCABULARY).greedy.tolist() == decoded
    assert 0 < sum(decoded) < 20
