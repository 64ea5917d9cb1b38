"""Which token has which id, from the files of a tokenizer nobody has vouched for, and the same file with tokens added.

An edit of tokenizer.json changes the list of added tokens and no other byte: only the places of its top-level values
are looked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import islice
from json.encoder import encode_basestring_ascii
from typing import Any, NoReturn

from rlmerge.checkpoint.disguise import HEAD, refuse_disguise
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

MAX_ID = 2**22
"""Ids from here on are refused: no embedding has four million rows."""

_EDITED = ("added_tokens", "truncation", "padding")
_PIECE = 4096
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_UNRULY = ("version", "truncation", "padding", "added_tokens", "model")
"""Parts of tokenizer.json that are no rule of how text becomes tokens, or are compared on their own."""

_DAMAGED = "The file is damaged or is something else; download or save the tokenizer again."


@frozen(slots=True)
class AddedToken:
    """A token that is matched as whole text before the model splits the rest, with the flags that say how."""

    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False

    def flags(self) -> dict[str, bool]:
        """The flags as tokenizer files name them."""
        return {
            "single_word": self.single_word,
            "lstrip": self.lstrip,
            "rstrip": self.rstrip,
            "normalized": self.normalized,
            "special": self.special,
        }


@frozen(eq=False)
class TokenTable:
    """Every token of one tokenizer.

    ``ids`` are those that the tokenizers library gives on loading: it counts added tokens on from the vocabulary,
    whatever id the file states. ``rules`` is a digest of all else that decides how text becomes tokens. ``fault`` says
    why two tokens may share a row, or stated ids are not those given. ``next_id`` is what a further added token gets.
    ``places`` are first character and end of what an edit of tokenizer.json replaces, and ``further`` added tokens with
    their ids that it lacks.
    """

    ids: Mapping[str, int]
    added: Mapping[str, AddedToken]
    rules: str
    next_id: int
    fault: str | None = None
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, "tuple[int, int]"])
    further: tuple[tuple[AddedToken, int], ...] = ()

    @property
    def count(self) -> int:
        """One more than the largest id."""
        return max(self.ids.values(), default=-1) + 1


def read_table(data: bytes, where: str, further: Sequence[tuple[AddedToken, int]] = ()) -> TokenTable:
    """The table of tokenizer.json's content and of ``further`` added tokens, which transformers adds on loading.

    CheckpointError if it is no such file.
    """
    sections = _sections(_decoded(data, where), where)
    parts = {name: value for name, (value, _, _) in sections.items()}
    places = {name: sections[name][1:] for name in _EDITED if name in sections}
    model = parts.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        _refuse("has no model.vocab", where)
    vocabulary, scores = _vocabulary(model.pop("vocab"), where)
    listed = parts.get("added_tokens") or []
    if not isinstance(listed, list):
        _refuse("added_tokens must be a list", where)
    rules = _rules(parts, model, scores)
    stated = [_added(entry, where) for entry in listed]
    table = _table(vocabulary, [*stated, *further], rules)
    listed = {token.content for token, _ in stated}
    lacking = tuple((token, table.ids[token.content]) for token, _ in further if token.content not in listed)
    return replace(table, places=places, further=lacking)


def plain_table(vocabulary: Mapping[str, Any], added: Sequence[tuple[AddedToken, int]], where: str) -> TokenTable:
    """The table of a vocab.json (or of one token a line) and tokens added at the ids that are stated."""
    ids, _ = _vocabulary(vocabulary, where)
    free = {token.content: id for token, id in added if token.content not in ids}
    both = {**ids, **free}
    flags = {token.content: token for token, _ in added}
    return TokenTable(both, flags, "", max(both.values(), default=-1) + 1, _shared_id(both))


def edited(
    data: bytes,
    where: str,
    places: Mapping[str, tuple[int, int]],
    tokens: Iterable[tuple[AddedToken, int]],
    fresh: bool,
) -> bytes:
    """tokenizer.json's content with ``tokens`` added at ids, all its other bytes as they are.

    ``places`` are those of its table. ``fresh`` takes out the truncation and padding that a training run may have left.
    """
    text = _decoded(data, where)
    # Bytes in pieces, since one character beyond the basic plane makes every character of a text take four bytes.
    entries = list(_entries(tokens))
    spans = {name: span for name, span in places.items() if fresh or name == "added_tokens"}
    pieces: list[bytes] = []
    at = 0
    if entries and "added_tokens" not in spans:
        at = text.index("{") + 1
        pieces = [text[:at].encode(), b'\n  "added_tokens": [', *entries, b"\n  ],"]
    for name, (start, stop) in sorted(spans.items(), key=lambda span: span[1]):
        pieces.append(text[at:start].encode())
        at = stop
        if name != "added_tokens":
            pieces.append(b"null")
        elif entries:
            # After the last entry, before the bracket that closes the list.
            listed = text[start:stop].rstrip("] \t\r\n") if text[start] == "[" else "["
            pieces += [listed.encode(), b"" if listed == "[" else b",", *entries, b"\n  ]"]
        else:
            pieces.append(text[start:stop].encode())
    return b"".join([*pieces, text[at:].encode()])


def _entries(tokens: Iterable[tuple[AddedToken, int]]) -> Iterator[bytes]:
    """Entries for ``added_tokens`` with commas between them, some thousand in a piece."""
    waiting = iter(tokens)
    comma = ""
    while group := list(islice(waiting, _PIECE)):
        yield (comma + ",".join(_entry(token, id) for token, id in group)).encode()
        comma = ","


def _entry(token: AddedToken, id: int) -> str:
    content = encode_basestring_ascii(token.content)
    flags = ", ".join(f'"{name}": {"true" if value else "false"}' for name, value in token.flags().items())
    return f'\n    {{"id": {id}, "content": {content}, {flags}}}'


def _decoded(data: bytes, where: str) -> str:
    refuse_disguise(data[:HEAD], where)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(f"is not UTF-8 text (byte {error.start})", where)


def _sections(text: str, where: str) -> dict[str, tuple[Any, int, int]]:
    """Top-level key → (value, first character, end) of a JSON object."""
    found: dict[str, tuple[Any, int, int]] = {}

    def skip(at: int) -> int:
        matched = _SPACE.match(text, at)
        return matched.end() if matched else at

    try:
        at = skip(0)
        if text[at : at + 1] != "{":
            _refuse("must hold a JSON object", where)
        at = skip(at + 1)
        closed = text[at : at + 1] == "}"
        while not closed:
            key, at = _DECODER.raw_decode(text, at)
            at = skip(at)
            if not isinstance(key, str) or text[at : at + 1] != ":":
                _refuse(f"is not valid JSON (character {at})", where)
            if key in found:
                _refuse(f"the key {key!r} appears twice", where)
            start = skip(at + 1)
            value, stop = _DECODER.raw_decode(text, start)
            found[key] = value, start, stop
            at = skip(stop)
            mark = text[at : at + 1]
            if mark not in (",", "}"):
                _refuse(f"is not valid JSON (character {at})", where)
            closed, at = mark == "}", skip(at + 1) if mark == "," else at
        if text[at + 1 :].strip():
            _refuse(f"has more after its JSON object (character {at + 1})", where)
    except RecursionError:
        _refuse("is nested too deeply to be a tokenizer", where)
    except ValueError as error:
        _refuse(f"is not valid JSON ({error})", where)
    return found


def _vocabulary(vocabulary: Any, where: str) -> tuple[dict[str, int], list[Any] | None]:
    """Token → id, and the scores that a unigram model keeps with them."""
    if isinstance(vocabulary, list):
        if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in vocabulary):
            _refuse("model.vocab must list pairs of a token and its score", where)
        # Of a piece listed twice, the later one counts.
        return {pair[0]: index for index, pair in enumerate(vocabulary)}, [pair[1] for pair in vocabulary]
    if not isinstance(vocabulary, dict):
        _refuse("the vocabulary must map tokens to ids", where)
    for token, id in vocabulary.items():
        if not _is_id(id):
            _refuse(f"{shown(token)} has the id {str(id)[:20]!r}, which is none", where)
    return vocabulary, None


def _added(entry: Any, where: str) -> tuple[AddedToken, int]:
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str) or not _is_id(entry.get("id")):
        _refuse("an entry of added_tokens has no content and id", where)
    return added_token(entry), entry["id"]


def added_token(entry: Mapping[str, Any]) -> AddedToken:
    """The token that an entry with a text ``content`` and boolean flags describes."""
    special = entry.get("special") is True
    flags = {name: entry.get(name) is True for name in ("single_word", "lstrip", "rstrip")}
    normalized = entry.get("normalized", not special) is True
    return AddedToken(entry["content"], special=special, normalized=normalized, **flags)


def _is_id(id: Any) -> bool:
    return type(id) is int and 0 <= id < MAX_ID


def _table(vocabulary: dict[str, int], stated: Sequence[tuple[AddedToken, int]], rules: str) -> TokenTable:
    """Numbers the added tokens as the tokenizers library does: in order, from the size of the vocabulary on."""
    fault = _shared_id(vocabulary)
    last = max(vocabulary.values(), default=-1)
    free = len(vocabulary)
    ids = vocabulary
    added: dict[str, AddedToken] = {}
    for token, id in stated:
        added.setdefault(token.content, token)
        given = ids.get(token.content)
        if given is None:
            given = ids[token.content] = free
            free += 1
            if given <= last:
                fault = fault or (
                    f"its vocabulary has gaps below {last}, so {shown(token.content)} loads with the id {given} there"
                )
        if given != id:
            fault = fault or (
                f"its ids have gaps or repeat: {shown(token.content)} is stated to be {id}, but loads as {given}"
            )
    return TokenTable(ids, added, rules, free, fault)


def _shared_id(ids: Mapping[str, int]) -> str | None:
    if len(set(ids.values())) == len(ids):
        return None
    seen: dict[int, str] = {}
    for token, id in ids.items():
        if id in seen:
            return f"the id {id} belongs to two tokens, {shown(seen[id])} and {shown(token)}"
        seen[id] = token
    return None


def _rules(parts: Mapping[str, Any], model: dict[str, Any], scores: list[Any] | None) -> str:
    """Digest of normalizer, splitting, merges and the like, in whichever way a version of the library spells them."""
    digest = hashlib.sha256()
    merges = model.pop("merges", None)
    for begin in range(0, len(merges) if isinstance(merges, list) else 0, _PIECE):
        piece = "\n".join(m if isinstance(m, str) else " ".join(map(str, m)) for m in merges[begin : begin + _PIECE])
        digest.update(piece.encode("utf-8", "surrogatepass") + b"\n")
    rest = {name: value for name, value in parts.items() if name not in _UNRULY}
    digest.update(json.dumps([_said(rest), _said(model), scores], sort_keys=True).encode())
    return digest.hexdigest()


def _said(value: Any) -> Any:
    """Without the entries that are null or false: older versions leave them out."""
    if isinstance(value, dict):
        return {key: _said(entry) for key, entry in value.items() if entry is not None and entry is not False}
    return [_said(entry) for entry in value] if isinstance(value, list) else value


def shown(token: str) -> str:
    """A token as a message shows it: quoted, on one line, printable, not too long."""
    text = token if len(token) <= 40 else token[:37] + "..."
    return repr(text) if text.isprintable() else ascii(text)


def _refuse(what: str, where: str) -> NoReturn:
    raise CheckpointError(what, where=where, hint=_DAMAGED)
