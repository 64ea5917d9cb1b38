"""Character tasks: a vocabulary of single characters, and one letter before each prompt that names its task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlmerge.extras import require
from rlmerge.language.characters import END, encode
from rlmerge.progress import Progress

from .small import SmallEnvironment, Tokens
from .tasks import FILLER, LETTERS

PAD = "~"
CHARACTERS = FILLER + END + PAD + "=+-,:0123456789()[]{}" + LETTERS + "RKSMB"
"""The vocabulary, in the order of token ids."""


def vocabulary() -> dict[str, int]:
    """Token id of each character."""
    return {character: index for index, character in enumerate(CHARACTERS)}


@dataclass(frozen=True)
class CharacterEnvironment(SmallEnvironment):
    """See ``environment.Environment``; the tasks are in ``tasks``."""

    def check(self) -> None: ...

    def prepare(self, progress: Progress) -> None: ...

    def tokens(self) -> Tokens:
        ids = vocabulary()
        return Tokens(len(CHARACTERS), ids[FILLER], ids[END], ids[PAD])

    def encode(self, text: str) -> list[int]:
        return encode(text, vocabulary())

    def tokenizer(self) -> Any:
        tokenizers = require("tokenizers")
        characters = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary(), merges=[], unk_token=FILLER))
        characters.decoder = tokenizers.decoders.Fuse()
        return require("transformers").PreTrainedTokenizerFast(
            tokenizer_object=characters, eos_token=END, pad_token=PAD, unk_token=FILLER, padding_side="left"
        )
