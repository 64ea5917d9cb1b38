"""The vocabulary of an output: which token has which id, and where each model's row for it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from typing import Literal

import numpy as np

from rlmerge.checkpoint.model import Checkpoint
from rlmerge.checkpoint.picked_rows import MIX, PADDING, ZERO, Mixes, PickedRows, Rows
from rlmerge.checkpoint.source import Source
from rlmerge.checkpoint.tables import same_table, vocabulary_tables
from rlmerge.checkpoint.token_table import AddedToken
from rlmerge.checkpoint.tokenizer import Tokenizer
from rlmerge.frozen import frozen


@frozen(eq=False)
class ModelToken:
    """A row of a model: that of ``token``, of the row number ``id``, or with neither of the token it is given for."""

    model: Checkpoint
    token: str | None = None
    id: int | None = None


@frozen(eq=False)
class TokenSpec:
    """What a recipe says of one token: where its row comes from in models that lack it, or with ``force`` in all.

    Without a ``source`` the default applies: the base's row, else the mean of all that there are.
    """

    source: ModelToken | Literal["zero"] | None = None
    force: bool = False


@frozen(eq=False)
class TokenizerSpec:
    """The vocabulary that a recipe asks for."""

    source: Literal["base", "union"] | Checkpoint = "union"
    tokens: Mapping[str, TokenSpec] = field(default_factory=dict[str, TokenSpec])
    pad_to_multiple_of: int | None = None


@frozen(eq=False)
class Member:
    """A model that takes part: its tokenizer, if it has one, and its vocabulary tables."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer | None

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.checkpoint.reference

    @cached_property
    def tables(self) -> dict[str, Source]:
        """Its vocabulary tables by name."""
        return vocabulary_tables(self.checkpoint.tensors, self.checkpoint.config)

    @cached_property
    def rows(self) -> int:
        """Rows of its vocabulary tables; 0 where it has none."""
        return next((table.shape[0] for table in self.tables.values()), 0)

    @property
    def ids(self) -> Mapping[str, int]:
        """Its tokens; none where its tokenizer cannot be read token by token."""
        table = self.tokenizer.table if self.tokenizer else None
        return table.ids if table else {}


@frozen(eq=False)
class Vocabulary:
    """An output's tokens and rows.

    ``members`` are the models, the base (or what stands for it) first; ``own`` int [members, size] holds the row of
    each for every output row, -1 where it has none. Such a member gets what ``given`` says, (member, row) or None
    for zeros, else the base's row, else the mean of all there are; in rows that are ``forced`` every member does.
    ``kept`` says whether rows without any token are filled like this too; they are the mean of a member's others if
    not. An output ``by_position`` matches rows and ids by their number. ``taken`` says whose tokenizer is taken where
    it is not the base's.

    ``donor`` is whose tokenizer files are copied, ``appended`` what is added to them. ``tokens`` counts ids in use.
    """

    members: tuple[Member, ...]
    donor: Member
    ids: Mapping[str, int]
    tokens: int
    size: int
    own: np.ndarray
    appended: tuple[tuple[AddedToken, int], ...] = ()
    given: Mapping[int, tuple[int, int] | None] = field(default_factory=dict[int, "tuple[int, int] | None"])
    forced: frozenset[int] = frozenset()
    kept: bool = True
    by_position: bool = False
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    _rows: dict[tuple[int, tuple[bool, ...]], Rows] = field(default_factory=dict[tuple[int, "tuple[bool, ...]"], Rows])

    def tensors(self, checkpoint: Checkpoint) -> Mapping[str, Source]:
        """The tensors of a member, its vocabulary tables in the rows of the output.

        Tables that already are stay the same objects, and so does a model that is no member.
        """
        index = next((k for k, member in enumerate(self.members) if member.checkpoint is checkpoint), None)
        if index is None:
            return checkpoint.tensors
        aligned = {name: self._aligned(index, name, table) for name, table in self.members[index].tables.items()}
        return {**checkpoint.tensors, **aligned}

    def rows(self, index: int, present: tuple[bool, ...]) -> Rows:
        """Where the rows of one member's table come from, with the tables of the members that are ``present``."""
        if (index, present) not in self._rows:
            own = np.where(np.asarray(present)[:, None], self.own, -1)
            table, row, mixes = self._fill(own)
            for place, picked in self.given.items():
                if picked is None or present[picked[0]]:
                    table[place], row[place] = picked or (ZERO, 0)
            has = own[index] >= 0
            has[list(self.forced)] = False
            table, row = np.where(has, index, table), np.where(has, own[index], row)
            self._rows[index, present] = Rows(table.astype(np.int16), row.astype(np.int32), mixes)
        return self._rows[index, present]

    def unfilled(self) -> list[str]:
        """Tokens that no model has a row for and none is given: their rows are zeros."""
        empty = {int(row) for row in np.flatnonzero((self.own < 0).all(axis=0))} - set(self.given)
        return [token for token, id in self.ids.items() if id in empty] if empty else []

    def _fill(self, own: np.ndarray) -> tuple[np.ndarray, np.ndarray, Mixes]:
        """For each output row what a member gets that has none: the base's row, or the mean of the owners'."""
        owners = (own[1:] >= 0).sum(axis=0)
        first = np.argmax(own[1:] >= 0, axis=0) + 1 if len(own) > 1 else np.zeros(own.shape[1], int)
        table = np.where(own[0] >= 0, 0, np.where(owners == 1, first, np.where(owners > 1, MIX, ZERO)))
        row = np.take_along_axis(own, first[None], axis=0)[0]
        row = np.where(own[0] >= 0, own[0], np.where(table >= 0, row, 0))
        if not self.kept:
            table[unused_rows(self.ids, self.size)] = PADDING
        mixed = np.flatnonzero(table == MIX)
        row[mixed] = np.arange(len(mixed))
        columns = own[1:, mixed].T
        which, picked = np.nonzero(columns >= 0)
        start = np.searchsorted(which, np.arange(len(mixed) + 1))
        counts = owners[mixed].astype(np.float64)
        return table, row, Mixes(start, picked + 1, columns[which, picked], np.ones(len(picked)), counts)

    def _aligned(self, index: int, name: str, table: Source) -> Source:
        """One table of a member, row by row of the output."""
        found = [same_table(name, member.tables, member.checkpoint.tied_embeddings) for member in self.members]
        found[index] = table
        sources = [table if other is None or other.shape[1:] != table.shape[1:] else other for other in found]
        present = tuple(other is not None and other.shape[1:] == table.shape[1:] for other in found)
        rows = self.rows(index, present)
        same = table.shape[0] == self.size and (rows.table == index).all() and (rows.row == np.arange(self.size)).all()
        return table if same else PickedRows(table, sources, rows)


def unused_rows(ids: Mapping[str, int], size: int) -> np.ndarray:
    """Which of ``size`` rows belong to no token, bool [size]."""
    taken = np.fromiter(ids.values(), np.int64, len(ids))
    free = np.ones(size, bool)
    free[taken[taken < size]] = False
    return free


def rows_of(member: Member, ids: Mapping[str, int], size: int) -> np.ndarray:
    """The row of a member for each row of an output with these ids, int32 [size]; -1 where it has none."""
    rows = np.fromiter(member.ids.values(), np.int64, len(member.ids))
    places = np.fromiter((ids.get(token, -1) for token in member.ids), np.int64, len(rows))
    has = (places >= 0) & (places < size) & (rows < member.rows)
    found = np.full(size, -1, np.int32)
    found[places[has]] = rows[has]
    return found
