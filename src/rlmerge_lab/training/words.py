"""The tasks in English, over a BPE vocabulary of some thousand tokens, by models that also read plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.extras import require
from rlmerge.language.characters import END
from rlmerge.progress import Progress

from .corpus import PAD, UNKNOWN, identity, read_text, write_corpus
from .small import SmallEnvironment, Tokens
from .tasks import CharacterQuestion
from .wording import WORDED, put_into_words


@dataclass(frozen=True)
class WordEnvironment(SmallEnvironment):
    """See ``environment.Environment``. Questions are instructions of ``wording``; bases read text of ``corpus`` too."""

    @property
    def folder(self) -> Path:
        """Where the tokenizer and the text of all models are."""
        return self.root / "words"

    def check(self) -> None:
        wrong = next((name for name in (*self.profile.tasks, *self.profile.held) if name not in WORDED), None)
        if wrong is not None:
            raise RequestError(f"task '{wrong}' has no instructions in words", hint=f"Choose of {', '.join(WORDED)}.")

    def prepare(self, progress: Progress) -> None:
        if not (self.folder / "text.jsonl").exists():
            progress.message("writing text and tokenizer")
        assert self.profile.vocabulary is not None, "a profile of words has a vocabulary"
        write_corpus(self.folder, self.profile.vocabulary)

    def identity(self) -> Mapping[str, Sequence[Any]]:
        assert self.profile.vocabulary is not None, "a profile of words has a vocabulary"
        found = dict(super().identity())
        return {**found, "base": [*found["base"], list(self.profile.held), identity(self.profile.vocabulary)]}

    def word(self, question: CharacterQuestion) -> CharacterQuestion:
        return put_into_words(question)

    def tokens(self) -> Tokens:
        end = self._words.token_to_id(END)
        return Tokens(self._words.get_vocab_size(), end, end, self._words.token_to_id(PAD))

    def encode(self, text: str) -> list[int]:
        return self._words.encode(text).ids

    def text_example(self, random: Random) -> dict[str, list[int]] | None:
        """A piece of text of which every token is learnt."""
        ids = self.encode(random.choice(self._text))
        return {"input_ids": ids, "labels": list(ids)}

    def tokenizer(self) -> Any:
        return require("transformers").PreTrainedTokenizerFast(
            tokenizer_object=self._words, eos_token=END, pad_token=PAD, unk_token=UNKNOWN, padding_side="left"
        )

    @cached_property
    def _words(self) -> Any:
        return require("tokenizers").Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    @cached_property
    def _text(self) -> list[str]:
        return read_text(self.folder, "train")
