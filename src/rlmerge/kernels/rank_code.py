"""LLVM IR of the walk over one row that ``ranks`` compiles: count, number the bins, look up, sort what is left.

The entries that count are put side by side first; most entries of a task vector are 0.
"""

from __future__ import annotations

from collections.abc import Callable

from . import pack
from .emit import LANES, Emitter, loop
from .rank_bins import FIRST_GROUP, TURNS, bins, mark, share
from .rank_sort import LOOPS, list_them, rank_listed

_VECTOR, _MASK, _FLOATS = f"<{LANES} x i32>", f"<{LANES} x i1>", f"<{LANES} x float>"

SCRATCH = ("words", "places", "masks", "pairs", "list", "counts", "lows", "shifts", "results", "bits", "digits")
"""The memory of ``@rank``, whose addresses are in a table: the first five have room for a row, the others one size."""

Load = Callable[[Emitter, str], str]
"""Emits the values of a row from a position on, as floats."""


def declarations(packs: int) -> str:
    """What ``function`` calls."""
    kinds = {_VECTOR: f"v{LANES}i32", "<1 x i32>": "v1i32"}
    return "\n".join(
        [
            "declare i64 @llvm.cttz.i64(i64, i1)",
            "declare i64 @llvm.ctpop.i64(i64)",
            f"declare i32 @llvm.vector.reduce.add.v{TURNS}i32(<{TURNS} x i32>)",
            *(
                f"declare i32 @llvm.vector.reduce.{name}.{kind}({vector})"
                for vector, kind in kinds.items()
                for name in ("or", "umax")
            ),
            pack.declarations(packs, "i32"),
        ]
    )


def function(name: str, load: Load, packs: int) -> str:
    """``@name``: for a row of ``%columns`` values, ``%out`` gets what ``spread_by_rank`` says.

    ``load`` may use ``%theta`` and ``%base``. ``%odd``, an i64, gets 1 where the row holds NaN, which has no rank.
    ``packs`` as for ``Host``.
    """
    loops = ("wide", "rest", "scan", "left", "enter", "each", "look", "put.wide", "put.rest", "give.wide", "give.rest")
    slots = (*loops, *LOOPS, "kept", "listed", "fresh", "listed.before", "off")
    return "\n".join(
        [
            f"define internal void @{name}(ptr %theta, ptr %base, i64 %columns, double %middle, double %half, "
            "i1 %unranked, ptr %out, ptr %scratch, ptr %odd) noinline {",
            *(f"%{slot}.at = alloca i64" for slot in slots),
            *(f"%{slot} = alloca i64" for slot in ("each.words", "each.left", "before", "end")),
            "%offset = alloca i32",
            *(f"%{slot}.{w} = alloca <{w} x i32>" for w in (LANES, 1) for slot in ("low", "top")),
            *(f"store <{w} x i32> zeroinitializer, ptr %{slot}.{w}" for w in (LANES, 1) for slot in ("low", "top")),
            *_pointers(),
            f"%whole = and i64 %columns, {-LANES if packs else 0}",
            "store i64 0, ptr %kept.at",
            *(loop("wide", "%whole", *_pack(load, packs), step=LANES) if packs else ()),
            *loop("rest", "%columns", *_append(load), start="%whole"),
            *_summary(),
            *_count(),
            *list_them(_places(load, packs)),
            *_number(),
            *_look_up(),
            "store i64 0, ptr %off.at",
            *(_expand(packs) if packs else ()),
            *_give_rest(load),
            *rank_listed(),
            "ret void",
            "}",
        ]
    )


def _pointers() -> list[str]:
    """The addresses of the memory, and of its second half where pairs go to and fro."""
    lines: list[str] = []
    for index, name in enumerate(SCRATCH):
        lines.append(f"%{name}.from = getelementptr ptr, ptr %scratch, i64 {index}")
        lines.append(f"%{name} = load ptr, ptr %{name}.from")
    return [*lines, "%others = getelementptr i64, ptr %pairs, i64 %columns"]


def _words(e: Emitter, load: Load, position: str) -> tuple[str, str]:
    """Magnitudes as integers, which order like them, and the mask of those that are not 0; the largest is kept."""
    kind = e.vector("i32")
    signed = e.let(f"bitcast {e.reals} {load(e, position)} to {kind}")
    words = e.let(f"and {kind} {signed}, {e.integer('i32', 0x7FFFFFFF)}")
    low = e.let(f"load {kind}, ptr %low.{e.width}")
    e.do(f"store {kind} {e.let(f'or {kind} {low}, {words}')}, ptr %low.{e.width}")
    top = e.let(f"load {kind}, ptr %top.{e.width}")
    above = e.let(f"icmp ugt {kind} {words}, {top}")
    e.do(f"store {kind} {e.let(f'select {e.mask} {above}, {kind} {words}, {kind} {top}')}, ptr %top.{e.width}")
    return words, e.let(f"icmp ne {kind} {words}, zeroinitializer")


def _pack(load: Load, packs: int) -> list[str]:
    """Put the entries of a vector that are not 0 behind those that are there; keep which they are."""
    e = Emitter(LANES, "float", "w")
    words, mask = _words(e, load, "%wide")
    flags = e.let(f"bitcast {_MASK} {mask} to i{LANES}")
    number = e.let(f"lshr i64 %wide, {LANES.bit_length() - 1}")
    e.do(f"store i{LANES} {flags}, ptr {e.let(f'getelementptr i{LANES}, ptr %masks, i64 {number}')}")
    pack.append(e, words, flags, packs, "%words", "%kept.at")
    return e.lines


def _places(load: Load, packs: int) -> list[str]:
    """Where in the row each of the kept entries stands."""
    wide, one = Emitter(LANES, "float", "p"), Emitter(1, "float", "q")
    if packs:
        flags = _kept_lanes(wide, "%put.wide")
        first = wide.splat("i32", wide.let("trunc i64 %put.wide to i32"))
        lanes = "<" + ", ".join(f"i32 {lane}" for lane in range(LANES)) + ">"
        pack.append(wide, wide.let(f"add {_VECTOR} {first}, {lanes}"), flags, packs, "%places", "%off.at")
    before = one.let("load i64, ptr %off.at")
    place = one.let("trunc i64 %put.rest to i32")
    one.do(f"store i32 {place}, ptr {one.let(f'getelementptr i32, ptr %places, i64 {before}')}, align 4")
    some = one.let(f"zext i1 {_is_kept(one, load, '%put.rest')} to i64")
    one.do(f"store i64 {one.let(f'add i64 {before}, {some}')}, ptr %off.at")
    return [
        "store i64 0, ptr %off.at",
        *(loop("put.wide", "%whole", *wide.lines, step=LANES) if packs else ()),
        *loop("put.rest", "%columns", *one.lines, start="%whole"),
    ]


def _kept_lanes(e: Emitter, position: str) -> str:
    """Which entries of the vector at a position are kept, in a bit each."""
    number = e.let(f"lshr i64 {position}, {LANES.bit_length() - 1}")
    return e.let(f"load i{LANES}, ptr {e.let(f'getelementptr i{LANES}, ptr %masks, i64 {number}')}")


def _is_kept(e: Emitter, load: Load, position: str) -> str:
    """Whether the entry at a position is kept."""
    signed = e.let(f"bitcast <1 x float> {load(e, position)} to i32")
    return e.let(f"icmp ne i32 {e.let(f'and i32 {signed}, {0x7FFFFFFF}')}, 0")


def _append(load: Load) -> list[str]:
    """The same of one entry."""
    e = Emitter(1, "float", "r")
    words, mask = _words(e, load, "%rest")
    kept = e.let("load i64, ptr %kept.at")
    e.do(f"store <1 x i32> {words}, ptr {e.let(f'getelementptr i32, ptr %words, i64 {kept}')}, align 4")
    one = e.let(f"zext i1 {e.let(f'extractelement <1 x i1> {mask}, i64 0')} to i64")
    e.do(f"store i64 {e.let(f'add i64 {kept}, {one}')}, ptr %kept.at")
    return e.lines


def _summary() -> list[str]:
    """How many entries rank, whether there is NaN, and whether any magnitude has bits below its bin."""
    found = [
        line
        for name, reduce in (("low", "or"), ("top", "umax"))
        for width in (LANES, 1)
        for kind in (f"<{width} x i32>",)
        for line in (
            f"%{name}.all.{width} = load {kind}, ptr %{name}.{width}",
            f"%{name}.of.{width} = call i32 @llvm.vector.reduce.{reduce}.v{width}i32({kind} %{name}.all.{width})",
        )
    ]
    return [
        *found,
        f"%row.low = or i32 %low.of.{LANES}, %low.of.1",
        f"%row.below = and i32 %row.low, {0x7FFF}",
        "%simple = icmp eq i32 %row.below, 0",
        f"%nan.wide = icmp ugt i32 %top.of.{LANES}, {0x7F800000}",
        f"%nan.rest = icmp ugt i32 %top.of.1, {0x7F800000}",
        "%nan = or i1 %nan.wide, %nan.rest",
        "%nan.word = zext i1 %nan to i64",
        "%odd.before = load i64, ptr %odd",
        "%odd.after = or i64 %odd.before, %nan.word",
        "store i64 %odd.after, ptr %odd",
        "%kept = load i64, ptr %kept.at",
        "%zeros = sub i64 %columns, %kept",
        "%ranked = select i1 %unranked, i64 %kept, i64 %columns",
        "%several = icmp ugt i64 %ranked, 1",
        "%last = sub i64 %ranked, 1",
        "%last.safe = select i1 %several, i64 %last, i64 1",
        "%last.divisor = uitofp i64 %last.safe to double",
    ]


def _count() -> list[str]:
    """Counts by bin, and the bits of the bins that hold something; no branch that nobody can foresee."""
    return [
        "store i64 0, ptr %fresh.at",
        f"%rounds = and i64 %kept, {-TURNS}",
        *loop("scan", "%rounds", *(line for turn in range(TURNS) for line in _count_one("scan", turn)), step=TURNS),
        *loop("left", "%kept", *_count_one("left", 0), start="%rounds"),
        "%fresh = load i64, ptr %fresh.at",
        *loop(
            "enter",
            "%fresh",
            "%enter.list.at = getelementptr i32, ptr %list, i64 %enter",
            "%enter.bin32 = load i32, ptr %enter.list.at",
            "%enter.bin = zext i32 %enter.bin32 to i64",
            "%enter.word = lshr i64 %enter.bin, 6",
            *mark("enter.low", "%enter.word", "%enter.bin"),
            "%enter.group = lshr i64 %enter.bin, 12",
            f"%enter.group.index = add i64 %enter.group, {FIRST_GROUP}",
            *mark("enter.high", "%enter.group.index", "%enter.word"),
        ),
    ]


def _count_one(name: str, turn: int) -> list[str]:
    """Count the entry that is ``turn`` behind ``%name``; note its bin if this is the first one there at this turn."""
    n = f"{name}.{turn}"
    return [
        f"%{n}.at = add i64 %{name}, {turn}",
        f"%{n}.word.at = getelementptr i32, ptr %words, i64 %{n}.at",
        f"%{n}.word = load i32, ptr %{n}.word.at",
        f"%{n}.bin = lshr i32 %{n}.word, 15",
        f"%{n}.wide = zext i32 %{n}.bin to i64",
        f"%{n}.first = mul i64 %{n}.wide, {TURNS}",
        f"%{n}.index = or i64 %{n}.first, {turn}",
        f"%{n}.place = getelementptr i32, ptr %counts, i64 %{n}.index",
        f"%{n}.seen = load i32, ptr %{n}.place",
        f"%{n}.after = add i32 %{n}.seen, 1",
        f"store i32 %{n}.after, ptr %{n}.place",
        f"%{n}.fresh = load i64, ptr %fresh.at",
        f"%{n}.list.at = getelementptr i32, ptr %list, i64 %{n}.fresh",
        f"store i32 %{n}.bin, ptr %{n}.list.at",
        f"%{n}.new = icmp eq i32 %{n}.seen, 0",
        f"%{n}.one = zext i1 %{n}.new to i64",
        f"%{n}.more = add i64 %{n}.fresh, %{n}.one",
        f"store i64 %{n}.more, ptr %fresh.at",
    ]


def _number() -> list[str]:
    """Results by bin, of entries that have no bits below it; where those that have some begin, and at which rank."""
    return [
        "%zeros.ranked = select i1 %unranked, i64 0, i64 %zeros",
        "store i64 %zeros.ranked, ptr %before",
        "store i64 0, ptr %listed.before.at",
        *share("zero.p", "0", "%zeros"),
        "%plain = fptrunc double %middle to float",
        "%zero.value = select i1 %unranked, float %plain, float %zero.p.result",
        *bins(
            "each",
            "%each.lows.at = getelementptr i32, ptr %lows, i64 %each.bin",
            "%each.lows32 = load i32, ptr %each.lows.at",
            "%each.lows = zext i32 %each.lows32 to i64",
            "%each.plain = sub i64 %each.count, %each.lows",
            "%each.start = load i64, ptr %before",
            *share("each.p", "%each.start", "%each.plain"),
            "%each.to = getelementptr float, ptr %results, i64 %each.bin",
            "store float %each.p.result, ptr %each.to",
            "%each.after = add i64 %each.start, %each.count",
            "store i64 %each.after, ptr %before",
            "%each.listed = load i64, ptr %listed.before.at",
            "%each.smaller = add i64 %each.start, %each.plain",
            "%each.shift = sub i64 %each.smaller, %each.listed",
            "%each.shift32 = trunc i64 %each.shift to i32",
            "%each.shift.at = getelementptr i32, ptr %shifts, i64 %each.bin",
            "store i32 %each.shift32, ptr %each.shift.at",
            "%each.listed32 = trunc i64 %each.listed to i32",
            "%each.none = icmp eq i32 %each.lows32, 0",
            "%each.begin = select i1 %each.none, i32 0, i32 %each.listed32",
            "store i32 %each.begin, ptr %each.lows.at",
            "%each.listed.after = add i64 %each.listed, %each.lows",
            "store i64 %each.listed.after, ptr %listed.before.at",
        ),
    ]


def _look_up() -> list[str]:
    """The result of every kept entry in place of its magnitude."""
    return loop(
        "look",
        "%kept",
        "%look.word.at = getelementptr i32, ptr %words, i64 %look",
        "%look.word = load i32, ptr %look.word.at",
        "%look.bin32 = lshr i32 %look.word, 15",
        "%look.bin = zext i32 %look.bin32 to i64",
        "%look.result.at = getelementptr float, ptr %results, i64 %look.bin",
        "%look.result = load float, ptr %look.result.at",
        "store float %look.result, ptr %look.word.at",
    )


def _expand(packs: int) -> list[str]:
    """All entries of whole vectors: results of the kept ones in their order, between them that of zeros."""
    e = Emitter(LANES, "float", "g")
    zero = e.splat("float", "%zero.value")
    splat, e.lines = e.lines, []
    values = pack.take(e, "%words", _kept_lanes(e, "%give.wide"), packs, "%off.at", zero)
    e.do(f"store {_FLOATS} {values}, ptr {e.let('getelementptr float, ptr %out, i64 %give.wide')}, align 4")
    return [*splat, *loop("give.wide", "%whole", *e.lines, step=LANES)]


def _give_rest(load: Load) -> list[str]:
    """The same of the entries behind them."""
    e = Emitter(1, "float", "h")
    some = _is_kept(e, load, "%give.rest")
    off = e.let("load i64, ptr %off.at")
    # Behind the last result there is room for a vector.
    result = e.let(f"load float, ptr {e.let(f'getelementptr float, ptr %words, i64 {off}')}")
    chosen = e.let(f"select i1 {some}, float {result}, float %zero.value")
    e.do(f"store float {chosen}, ptr {e.let('getelementptr float, ptr %out, i64 %give.rest')}")
    one = e.let(f"zext i1 {some} to i64")
    e.do(f"store i64 {e.let(f'add i64 {off}, {one}')}, ptr %off.at")
    return loop("give.rest", "%columns", *e.lines, start="%whole")
