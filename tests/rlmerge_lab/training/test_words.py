"""The environment of tasks in English: its text, its tokenizer, its examples and how answers are judged."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rlmerge.errors import RequestError
from rlmerge.evaluate.exact import Item, score
from rlmerge.language.characters import END, read_encoder
from rlmerge.language.tiny import load
from rlmerge.progress import Quiet
from rlmerge_lab.training import corpus
from rlmerge_lab.training.arms import ARMS
from rlmerge_lab.training.directory import Lab
from rlmerge_lab.training.profiles import PROFILES
from rlmerge_lab.training.tasks import task
from rlmerge_lab.training.wording import WORDED, put_into_words

pytest.importorskip("reasoning_gym")
pytest.importorskip("tokenizers")

SIZES = {"hidden": 16, "heads": 1, "layers": 1, "mlp": 16, "train": 20, "dev": 4, "test": 4}
SMALL = replace(PROFILES["words"], name="small-words", seeds=(0,), vocabulary=500, **SIZES)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    made = Lab.create(tmp_path_factory.mktemp("words") / "lab", SMALL)
    made.environment().prepare(Quiet())
    return made


def test_the_vocabulary_has_the_size_that_was_asked_for(lab):
    tokens = lab.environment().tokens()
    assert tokens.count == 500
    assert tokens.end != tokens.pad


@pytest.mark.parametrize("name", WORDED)
def test_every_answer_has_one_spelling_a_token_for_each_symbol(lab, name):
    environment = lab.environment()
    for question in map(put_into_words, task(name).questions(20, 5)):
        for answer in question.answers:
            ids = environment.encode(answer + END)
            assert len(ids) == len(answer.split()) + 1
            assert len(ids) <= environment.answer_tokens
            assert environment.tokenizer().decode(ids, skip_special_tokens=True).strip() == answer
            assert environment.is_right(question, answer + " ")
        assert not environment.is_right(question, question.slip)


def test_questions_of_held_tasks_are_there_for_the_base(lab):
    assert set(lab.questions("dev")) == {*SMALL.tasks, *SMALL.held}
    prompts = [q.prompt for split in ("dev", "test", "train") for qs in lab.questions(split).values() for q in qs]
    assert len(prompts) == len(set(prompts))


def test_pieces_of_text_fit_the_window_and_splits_share_none(lab):
    environment = lab.environment()
    pieces = {split: corpus.read_text(lab.root / "words", split) for split in ("dev", "test", "train")}
    assert all(len(environment.encode(piece)) <= corpus.WINDOW for piece in pieces["dev"])
    assert len(pieces["train"]) > 10 * len(pieces["dev"]) > 0
    rows = [json.loads(line) for line in (lab.root / "words" / "text.jsonl").read_text().splitlines()]
    assert all(row["text"].startswith(row["prompt"]) for row in rows)


def test_the_same_text_and_tokenizer_are_written_again(lab, tmp_path):
    corpus.write_corpus(tmp_path, 500)
    for name in ("tokenizer.json", "text.jsonl"):
        assert (tmp_path / name).read_bytes() == (lab.root / "words" / name).read_bytes()


def test_a_vocabulary_larger_than_the_text_has_pieces_for_is_refused(tmp_path):
    with pytest.raises(RequestError, match="has pieces for"):
        corpus.write_corpus(tmp_path / "words", 1_000_000)
    assert not (tmp_path / "words" / "text.jsonl").exists()


def test_a_task_without_instructions_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(RequestError, match="'brackets' has no instructions"):
        Lab.create(tmp_path / "lab", replace(SMALL, tasks=("reverse", "brackets")))
    assert not (tmp_path / "lab").exists()


def test_a_stored_model_is_scored_by_its_own_tokenizer(lab, tmp_path):
    """The exact probability is the product of the model's own probabilities of the answer's tokens and of the end."""
    torch = pytest.importorskip("torch")
    environment = lab.environment()
    model = environment.new_model(0)
    environment.save_model(model, tmp_path / "model", {})
    question = lab.questions("dev")["reverse"][0]
    found = score(
        load(tmp_path / "model"), [Item("reverse", question.prompt, question.answers)], read_encoder(tmp_path / "model")
    )
    stored = environment.load_model(tmp_path / "model", ARMS["rl"])
    prompt, answer = environment.encode(question.prompt), environment.encode(question.answers[0] + END)
    with torch.no_grad():
        logs = torch.log_softmax(stored(torch.tensor([prompt + answer])).logits[0].double(), dim=-1)
    places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    expected = sum(float(logs[place, token]) for place, token in zip(places, answer, strict=True))
    # Two float32 implementations of one small decoder.
    assert found.loss[0] == pytest.approx(-expected, abs=1e-4)
    assert np.isfinite(found.probability).all()
