"""The archive that torch.save writes: a zip file of uncompressed members, found without unpacking anything.

Members are ``<name>/data.pkl``, the pickle, and ``<name>/data/<key>``, the bytes of a storage each.
"""

from __future__ import annotations

import struct

from rlmerge.checkpoint.disguise import refuse_disguise
from rlmerge.checkpoint.files import InputFile
from rlmerge.errors import CheckpointError

_MAX_DIRECTORY = 64 * 2**20
_WINDOW = 4096
"""Bytes read at once where it begins and ends; small archives need no more."""

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class Archive:
    """The members of the archive that is the bytes [begin, end) of ``file``, by their names below its one folder.

    CheckpointError if it is no such archive, is damaged, or a member asked for is not there, compressed or encrypted.
    """

    def __init__(self, file: InputFile, begin: int = 0, end: int | None = None) -> None:
        self.file = file
        self._begin = begin
        self._end = file.size if end is None else end
        if not 0 <= self._begin <= self._end <= file.size:
            raise self._damaged(f"bytes {begin} to {end} lie outside of its {file.size}")
        self._head = file.copy(self._begin, min(self._begin + _WINDOW, self._end))
        self._members = self._read_directory()

    def span(self, name: str) -> tuple[int, int]:
        """Where the bytes of a member begin and end in the file."""
        found = self._members.get(name)
        if found is None:
            raise self._damaged(f"it has no member {name[:100]!r}")
        offset, size, stored = found
        if not stored:
            what = f"its member {name[:100]!r} is compressed or encrypted, as torch never writes it"
            raise CheckpointError(what, where=str(self.file), hint="Save it again with torch.save.")
        begin = self._begin + offset
        if begin + _LOCAL.size > self._end:
            raise self._damaged(f"member {name[:100]!r} lies outside")
        local = _LOCAL.unpack(self._bytes(begin, begin + _LOCAL.size))
        begin += _LOCAL.size + local[9] + local[10]
        if local[0] != b"PK\3\4" or begin + size > self._end:
            raise self._damaged(f"member {name[:100]!r} is not where it should be")
        return begin, begin + size

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def content(self, name: str, limit: int) -> bytes:
        """The bytes of a member, of which there may be ``limit``."""
        begin, end = self.span(name)
        if end - begin > limit:
            what = f"its member {name!r} takes {end - begin} bytes; at most {limit} are read"
            raise CheckpointError(what, where=str(self.file))
        return self._bytes(begin, end)

    def _bytes(self, first: int, last: int) -> bytes:
        """Bytes of the file, from what was read when it was opened where they are in it."""
        if self._begin <= first and last <= self._begin + len(self._head):
            return self._head[first - self._begin : last - self._begin]
        return self.file.copy(first, last)

    def _read_directory(self) -> dict[str, tuple[int, int, bool]]:
        """Name → offset of the local header, size, whether the bytes lie there as they are."""
        data, count = self._find_directory()
        members: dict[str, tuple[int, int, bool]] = {}
        at = 0
        for _ in range(count):
            if at + _ENTRY.size > len(data):
                raise self._damaged("its directory is cut off")
            entry = _ENTRY.unpack_from(data, at)
            name_length, extra_length, comment_length = entry[10:13]
            at += _ENTRY.size
            name, extra = data[at : at + name_length], data[at + name_length : at + name_length + extra_length]
            at += name_length + extra_length + comment_length
            if entry[0] != b"PK\1\2" or at > len(data):
                raise self._damaged("its directory is malformed")
            packed, size, offset = self._sizes(entry[8], entry[9], entry[16], extra)
            stored = entry[4] == 0 and not entry[3] & 1 and packed == size
            try:
                _, _, below = name.decode().partition("/")
            except UnicodeDecodeError:
                raise self._damaged("the name of a member is not UTF-8") from None
            if below in members:
                raise self._damaged(f"it holds {below[:100]!r} twice")
            members[below] = (offset, size, stored)
        return members

    def _find_directory(self) -> tuple[bytes, int]:
        """The central directory, and how many members it lists."""
        for length in (_WINDOW, _END.size + 2**16):
            tail_begin = max(self._begin, self._end - length)
            tail = self.file.copy(tail_begin, self._end)
            at = tail.rfind(b"PK\5\6")
            if at >= 0 and at + _END.size <= len(tail):
                break
        else:
            raise self._not_an_archive()
        _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
        if at >= _LOCATOR.size and tail[at - _LOCATOR.size :].startswith(b"PK\6\7"):
            _, _, where, _ = _LOCATOR.unpack_from(tail, at - _LOCATOR.size)
            begin = self._begin + where
            if begin + _END_64.size > self._end:
                raise self._damaged("its end is malformed")
            signature, *_, count, size, offset = _END_64.unpack(self._bytes(begin, begin + _END_64.size))
            if signature != b"PK\6\6":
                raise self._damaged("its end is malformed")
        first = self._begin + offset
        if size > _MAX_DIRECTORY or first + size > tail_begin + at:
            raise self._damaged("its directory lies outside")
        if first >= tail_begin:
            return tail[first - tail_begin : first - tail_begin + size], count
        return self._bytes(first, first + size), count

    def _sizes(self, packed: int, size: int, offset: int, extra: bytes) -> tuple[int, int, int]:
        """The three numbers of an entry, where they need eight bytes from its zip64 field."""
        wide = [value == 0xFFFFFFFF for value in (size, packed, offset)]
        if not any(wide):
            return packed, size, offset
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<HH", extra, at)
            if kind == 1 and length >= 8 * sum(wide) and at + 4 + length <= len(extra):
                given = iter(struct.unpack_from(f"<{sum(wide)}Q", extra, at + 4))
                size, packed, offset = (
                    next(given) if big else value for big, value in zip(wide, (size, packed, offset), strict=True)
                )
                return packed, size, offset
            at += 4 + length
        raise self._damaged("a size is missing from its directory")

    def _not_an_archive(self) -> CheckpointError:
        refuse_disguise(self._head, str(self.file))
        if self._head.startswith(_LEGACY):
            what = "was saved by torch before 1.6, in a form that only running its pickle could read"
            hint = "Load it with torch and save_pretrained(…, safe_serialization=True), then merge that."
            return CheckpointError(what, where=str(self.file), hint=hint)
        return self._damaged("it has no end record")

    def _damaged(self, why: str) -> CheckpointError:
        hint = "The file is damaged, cut off or was not written by torch.save; copy or save it again."
        return CheckpointError(f"is no sound torch archive: {why}", where=str(self.file), hint=hint)
