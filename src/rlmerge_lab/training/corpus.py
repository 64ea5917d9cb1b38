"""Plain English for bases to model besides their tasks, and a BPE tokenizer of a few thousand tokens learnt from it.

A novel in the public domain that reasoning-gym holds, and questions of its data sets that are put in sentences: nothing
is downloaded, and the same version gives the same text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.extras import require
from rlmerge.jsondata import write_text
from rlmerge.language.characters import END

from .environment import SPLITS
from .tasks import TASKS
from .wording import WORDED, put_into_words

PAD, UNKNOWN = "<pad>", "<unk>"
WINDOW = 32
"""Tokens of a piece of text."""
OPENING = 12
"""Words of a piece that a model is given to go on from."""

_SETS = ("gsm_symbolic", "family_relationships", "leg_counting", "syllogism", "knights_knaves", "coin_flip")
_QUESTIONS = 1200
"""Questions of each data set."""
_NOVEL = "in_the_year_2889.txt"
_SUFFIX = "</w>"
_LAST = 0xE000
"""Added to the code of a word's last character while the tokenizer is learnt: private use, which no text holds."""
_SHARES = {"dev": 0.05, "test": 0.05, "train": 0.9}


def identity(vocabulary: int) -> list[Any]:
    """What decides text and tokenizer."""
    return ["corpus", 1, vocabulary, version("reasoning-gym"), version("tokenizers")]


def write_corpus(folder: Path, vocabulary: int) -> None:
    """Write ``tokenizer.json`` and ``text.jsonl``, one piece a line with its split, into ``folder``, unless they are
    there.

    RequestError when the text has too few different pieces for a vocabulary of that size.
    """
    if (folder / "text.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    text = [_plain(part) for part in (*_novel(), *_questions())]
    words = _learn([*text, *_instructions()], vocabulary)
    found = words.get_vocab_size()
    if found != vocabulary:
        hint = f"Choose at most {found}."
        raise RequestError(f"the text has pieces for {found} tokens, not {vocabulary}", hint=hint)
    random = Random("pieces")
    random.shuffle(text)
    pieces = list(_pieces(words, text))
    ends = [round(sum(list(_SHARES.values())[: k + 1]) * len(pieces)) for k in range(len(SPLITS))]
    rows = [
        {"split": split, "text": piece, "prompt": " ".join(piece.split()[:OPENING])}
        for split, first, last in zip(SPLITS, (0, *ends), ends, strict=False)
        for piece in pieces[first:last]
    ]
    write_text(folder / "tokenizer.json", words.to_str())
    # Last: what is there is complete.
    write_text(folder / "text.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def read_text(folder: Path, split: str) -> list[str]:
    """The pieces of one split."""
    rows = map(json.loads, (folder / "text.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["text"] for row in rows if row["split"] == split]


def _learn(text: Sequence[str], vocabulary: int) -> Any:
    """Byte-pair encoding within words, whose last piece is marked: so a text of single characters has one spelling."""
    tokenizers = require("tokenizers")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[UNKNOWN, PAD, END], show_progress=False
    )
    # The trainer numbers the last letters of words as it meets them, in an order that changes from run to run, if it is
    # to mark them itself. As characters of their own it numbers them in order.
    learnt = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=UNKNOWN))
    learnt.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    learnt.train_from_iterator((" ".join(map(_mark, part.split())) for part in text), trainer)
    model = json.loads(learnt.to_str())["model"]
    words = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={_unmark(token): index for token, index in model["vocab"].items()},
            merges=[(_unmark(left), _unmark(right)) for left, right in model["merges"]],
            unk_token=UNKNOWN,
            end_of_word_suffix=_SUFFIX,
        )
    )
    words.add_special_tokens([UNKNOWN, PAD, END])
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.decoder = tokenizers.decoders.BPEDecoder(suffix=_SUFFIX)
    return words


def _mark(word: str) -> str:
    return word[:-1] + chr(ord(word[-1]) + _LAST)


def _unmark(token: str) -> str:
    return "".join(chr(ord(c) - _LAST) + _SUFFIX if ord(c) >= _LAST else c for c in token)


def _pieces(words: Any, text: Sequence[str]) -> Iterator[str]:
    """Windows of whole words, ``WINDOW`` tokens each at most."""
    for part in text:
        held: list[str] = []
        room = WINDOW
        for word in part.split():
            size = len(words.encode(word).ids)
            if size > room:
                yield " ".join(held)
                held, room = [], WINDOW
            held.append(word)
            room -= size


def _novel() -> Iterator[str]:
    raw = resources.files("reasoning_gym.data").joinpath(_NOVEL).read_text(encoding="utf-8")
    # The text proper stands between the lines that its publisher put around it.
    body = raw.split("***")[2] if raw.count("***") >= 4 else raw
    yield from (" ".join(paragraph.split()) for paragraph in body.split("\n\n") if paragraph.strip())


def _questions() -> Iterator[str]:
    from reasoning_gym import create_dataset  # its generators take a while to import

    for name in _SETS:
        yield from (" ".join(entry["question"].split()) for entry in create_dataset(name, seed=0, size=_QUESTIONS))


def _instructions() -> Iterator[str]:
    """Each task's questions and answers in words, so that every symbol has a token."""
    for name in WORDED:
        for question in TASKS[name].questions(200, 0):
            worded = put_into_words(question)
            yield f"{worded.prompt} {worded.teacher}"


def _plain(text: str) -> str:
    """Lower case letters, digits one by one, and punctuation as words of its own."""
    spread = "".join(c if c.isascii() and c.isalpha() else f" {c} " for c in text.lower() if c.isascii() and c != END)
    return " ".join(spread.split())
