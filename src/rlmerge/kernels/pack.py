"""LLVM IR that puts chosen lanes of a vector side by side, and that takes such lanes apart again.

Processors with vectors of 512 bits have instructions for it. Those with 256 bits permute lanes by a table, which has a
row for every choice of 8 lanes. LLVM makes code of neither kind for other processors, which go lane by lane.
"""

from __future__ import annotations

from .emit import Emitter

_COMPRESS = "@llvm.experimental.vector.compress"
_LANES = 8
"""Lanes that a table's row is of: 32 bits each."""

_UNSET = 0x80
"""What a row for taking apart holds where no lane belongs; a permutation looks at the lowest bits only."""


def piece(packs: int, word: str) -> int:
    """Lanes of type ``word`` that are moved together on processors that do so with ``packs`` bits; 0 for none."""
    bits = int(word[1:])
    return packs // bits if packs == 512 or bits == 32 else 0


def append(e: Emitter, values: str, flags: str, packs: int, memory: str, end: str) -> None:
    """Put those lanes of ``values``, integers like ``e.word``, behind the others in ``memory`` whose bits are set in
    ``flags``; the number in ``end``, of the words that are there, grows. There must be room for a vector more."""
    word, lanes = e.word, piece(packs, e.word)
    kind = f"<{lanes} x {word}>"
    for first in range(0, e.width, lanes):
        part = "<" + ", ".join(f"i32 {first + lane}" for lane in range(lanes)) + ">"
        few = e.let(f"shufflevector {e.vector(word)} {values}, {e.vector(word)} poison, <{lanes} x i32> {part}")
        chosen = _flags_of(e, flags, first, lanes)
        if packs == 512:
            mask = e.let(f"bitcast i{lanes} {chosen} to <{lanes} x i1>")
            arguments = f"{kind} {few}, <{lanes} x i1> {mask}, {kind} poison"
            packed = e.let(f"call {kind} {_COMPRESS}.v{lanes}{word}({arguments})")
        else:
            packed = e.let(f"call {kind} @llvm.x86.avx2.permd({kind} {few}, {kind} {_row(e, 'pack', chosen, 'zext')})")
        before = e.let(f"load i64, ptr {end}")
        place = e.let(f"getelementptr inbounds {word}, ptr {memory}, i64 {before}")
        e.do(f"store {kind} {packed}, ptr {place}, align 4")
        e.do(f"store i64 {_beyond(e, before, chosen, lanes)}, ptr {end}")


def take(e: Emitter, memory: str, flags: str, packs: int, end: str, other: str) -> str:
    """A vector of floats whose lanes with set bits in ``flags`` are the next ones in ``memory``, and otherwise those of
    the vector ``other``; the number in ``end``, of those that were taken, grows. There must be room for a vector more.
    """
    lanes = piece(packs, "i32")
    kind, mask = f"<{lanes} x float>", f"<{lanes} x i1>"
    parts: list[str] = []
    for first in range(0, e.width, lanes):
        chosen = _flags_of(e, flags, first, lanes)
        before = e.let(f"load i64, ptr {end}")
        source = e.let(f"getelementptr inbounds float, ptr {memory}, i64 {before}")
        part = "<" + ", ".join(f"i32 {first + lane}" for lane in range(lanes)) + ">"
        rest = e.let(f"shufflevector {e.reals} {other}, {e.reals} poison, <{lanes} x i32> {part}")
        if packs == 512:
            choice = e.let(f"bitcast i{lanes} {chosen} to {mask}")
            found = e.let(
                f"call {kind} @llvm.masked.expandload.v{lanes}f32(ptr {source}, {mask} {choice}, {kind} {rest})"
            )
        else:
            words = f"<{lanes} x i32>"
            row = _row(e, "take", chosen, "sext")
            next_ones = e.let(f"load {kind}, ptr {source}, align 4")
            spread = e.let(f"call {kind} @llvm.x86.avx2.permps({kind} {next_ones}, {words} {row})")
            unset = e.let(f"icmp slt {words} {row}, zeroinitializer")
            found = e.let(f"select {mask} {unset}, {kind} {rest}, {kind} {spread}")
        parts.append(found)
        e.do(f"store i64 {_beyond(e, before, chosen, lanes)}, ptr {end}")
    return parts[0] if len(parts) == 1 else _joined(e, parts, lanes)


def _flags_of(e: Emitter, flags: str, first: int, lanes: int) -> str:
    """The bits of a piece."""
    if lanes == e.width:
        return flags
    return e.let(f"trunc i{e.width} {e.let(f'lshr i{e.width} {flags}, {first}')} to i{lanes}")


def _row(e: Emitter, table: str, chosen: str, extend: str) -> str:
    """The row of a table for a choice of lanes, as indices of 32 bits."""
    index = e.let(f"zext i{_LANES} {chosen} to i64")
    place = e.let(f"getelementptr inbounds [{_LANES} x i8], ptr @{table}.table, i64 {index}")
    octets = e.let(f"load <{_LANES} x i8>, ptr {place}, align 8")
    return e.let(f"{extend} <{_LANES} x i8> {octets} to <{_LANES} x i32>")


def _beyond(e: Emitter, before: str, chosen: str, lanes: int) -> str:
    ones = e.let(f"call i64 @llvm.ctpop.i64(i64 {e.let(f'zext i{lanes} {chosen} to i64')})")
    return e.let(f"add i64 {before}, {ones}")


def _joined(e: Emitter, parts: list[str], lanes: int) -> str:
    kind = f"<{lanes} x float>"
    order = "<" + ", ".join(f"i32 {lane}" for lane in range(2 * lanes)) + ">"
    return e.let(f"shufflevector {kind} {parts[0]}, {kind} {parts[1]}, <{2 * lanes} x i32> {order}")


def declarations(packs: int, word: str) -> str:
    """What ``append`` and ``take`` use, but for ``@llvm.ctpop.i64``."""
    lanes = piece(packs, word)
    if not lanes:
        return ""
    kind, floats = f"<{lanes} x {word}>", f"<{lanes} x float>"
    if packs == 512:
        mask = f"<{lanes} x i1>"
        expand = f"declare {floats} @llvm.masked.expandload.v{lanes}f32(ptr, {mask}, {floats})"
        return f"declare {kind} {_COMPRESS}.v{lanes}{word}({kind}, {mask}, {kind})\n{expand}"
    return "\n".join(
        [
            f"declare {kind} @llvm.x86.avx2.permd({kind}, {kind})",
            f"declare {floats} @llvm.x86.avx2.permps({floats}, {kind})",
            _table("pack", _PACK),
            _table("take", _TAKE),
        ]
    )


def _set_lanes(flags: int) -> list[int]:
    return [lane for lane in range(_LANES) if flags >> lane & 1]


def _packing(flags: int) -> list[int]:
    """Which lane goes to each place: those that are set, from the first on."""
    found = _set_lanes(flags)
    return found + [0] * (_LANES - len(found))


def _taking(flags: int) -> list[int]:
    """Which place each lane comes from."""
    found = _set_lanes(flags)
    return [found.index(lane) if lane in found else _UNSET for lane in range(_LANES)]


_PACK = bytes(octet for flags in range(1 << _LANES) for octet in _packing(flags))
_TAKE = bytes(octet for flags in range(1 << _LANES) for octet in _taking(flags))


def _table(name: str, octets: bytes) -> str:
    text = "".join(f"\\{octet:02X}" for octet in octets)
    return f'@{name}.table = private unnamed_addr constant [{len(octets)} x i8] c"{text}", align 8'
