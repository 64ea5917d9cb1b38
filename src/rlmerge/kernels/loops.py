"""The loop around a traced formula, as an LLVM module: decode, compute, and hand each vector to the sinks.

Blocks: sums are kept in ``LANES`` lanes per block of fixed length and added up lane after lane at its end, the
remainder last. Because tiles start at block boundaries, a sum never depends on how the tensor was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from . import histogram
from .dtypes import BFLOAT16, DType
from .emit import Emitter, declarations, is_draw, limit_name
from .sinks import MASK_BITS, Body, Reduce, Slots, Write, count_masks, emit_reduce, emit_write, store_both
from .trace import Graph, carried

LANES = 16
SIGNATURE = (
    "i64 %n, i64 %start, i64 %block, i64 %columns, ptr %inputs, ptr %out, ptr %params, ptr %rows, i64 %row_stride, "
    "ptr %keys, ptr %sums, ptr %counts, ptr %largest, ptr %histograms, ptr %side, ptr %side_counts, "
    "i64 %side_capacity, ptr %selection, ptr %masks, i64 %mask_stride, ptr %held"
)


@dataclass(frozen=True)
class Program:
    """A traced formula with its inputs and its sink; everything a kernel is compiled from."""

    graph: Graph
    inputs: tuple[DType, ...]
    real: str
    sink: Write | Reduce
    zero_nonfinite: bool = False

    @property
    def sums_tell(self) -> bool:
        """Whether sums show every number that is not finite."""
        return isinstance(self.sink, Write) and self.sink.sums_tell

    @property
    def is_paired(self) -> bool:
        """Whether a step of the loop takes two vectors, every second element each: where all elements are bfloat16.

        A statistic's sums, which weights depend on, are added up vector after vector whatever the types.
        """
        halves = all(dtype is BFLOAT16 for dtype in self.inputs) and self.real == "float"
        sink = self.sink
        return halves and (sink.dtype is BFLOAT16 if isinstance(sink, Write) else not sink.sums)

    @property
    def step(self) -> int:
        """Elements of a step of the loop."""
        return 2 * LANES if self.is_paired else LANES

    @cached_property
    def results_tell(self) -> bool:
        """Whether a result is not finite wherever an input is not, so that inputs need not be looked at."""
        sink = self.sink
        roots = [sink.merged] if isinstance(sink, Write) else [*sink.sums, *sink.values]
        return not self.zero_nonfinite and carried(roots) >= set(range(len(self.inputs)))

    @property
    def lane(self) -> str:
        """Type of a sum's lanes: float64 for statistics, the arithmetic's own for accounting."""
        return self.real if isinstance(self.sink, Write) else "double"

    def used(self, op: str) -> list[int]:
        """Indices of the leaves of kind ``op``, in order."""
        return sorted(node.data for node in self.graph.nodes if node.op == op)


def module(program: Program, packs: bool = False) -> tuple[str, Slots]:
    """LLVM IR of ``@kernel`` and how many sums and counts it accumulates; ``packs`` as for ``histogram.hold``."""
    stochastic = isinstance(program.sink, Write) and program.sink.rounding == "stochastic"
    vector, slots = _vectors(program, stochastic, packs)
    tail, _, _ = _body(program, Emitter(1, program.real, "t"), "%tword", stochastic, packs)
    counting = _count_masks(program.sink, slots)
    values = len(program.sink.values) if isinstance(program.sink, Reduce) else 0
    word = "i32" if program.real == "float" else "i64"
    text = "\n".join(
        [
            declarations(program.real, (LANES, 1)),
            "declare i64 @llvm.ctpop.i64(i64)",
            *([histogram.function(word)] if values else []),
            f"define void @kernel({SIGNATURE}) {{",
            "entry:",
            *_entry(program, slots),
            *_BLOCK_HEAD,
            *_zero(slots, "sum", program.lane),
            "br label %seg.head",
            *_segment(program),
            "br label %vec.head",
            "vec.head:",
            "%vp = load i64, ptr %at",
            "%vmore = icmp slt i64 %vp, %vec.end",
            "br i1 %vmore, label %vec.body, label %tail.head",
            "vec.body:",
            "%vword = load i64, ptr %word.at",
            *vector,
            f"%vnext = add i64 %vp, {program.step}",
            "store i64 %vnext, ptr %at",
            f"%vword.next = add i64 %vword, {program.step // LANES}",
            "store i64 %vword.next, ptr %word.at",
            "br label %vec.head",
            "tail.head:",
            "%tp = load i64, ptr %at",
            "%tmore = icmp slt i64 %tp, %seg.end",
            "br i1 %tmore, label %tail.body, label %seg.head",
            "tail.body:",
            *tail,
            "%tnext = add i64 %tp, 1",
            "store i64 %tnext, ptr %at",
            "br label %tail.head",
            "block.done:",
            *counting,
            *_flush(slots, program.lane),
            "%bnext = add i64 %b, 1",
            "store i64 %bnext, ptr %block.index",
            "br label %block.head",
            "exit:",
            *_count_held(program.real, values),
            *_counts(slots),
            *_largest(program.real),
            "ret void",
            "}",
        ]
    )
    return text, slots


def _vectors(program: Program, stochastic: bool, packs: bool) -> tuple[list[str], Slots]:
    """The loop body for whole vectors: one, or two that take the elements in turn."""
    if not program.is_paired:
        lines, slots, _ = _body(program, Emitter(LANES, program.real, "v"), "%vword", stochastic, packs)
        return lines, slots
    first, slots, one = _body(program, Emitter(LANES, program.real, "va", 0), "%vword", stochastic, packs)
    second, _, two = _body(program, Emitter(LANES, program.real, "vb", 1), "%vword1", stochastic, packs)
    e = Emitter(LANES, program.real, "vc")
    if isinstance(program.sink, Write):
        store_both(e, "%vp", one, two)
    return [*first, "%vword1 = add i64 %vword, 1", *second, *e.lines], slots


def _body(program: Program, e: Emitter, word: str, stochastic: bool, packs: bool) -> tuple[list[str], Slots, str]:
    """A block of the loop, what it accumulates, and what it leaves to be stored."""
    tail = e.width == 1
    body = Body(e, "%tp" if tail else "%vp", word, tail)
    keys = program.used("uniform")
    low, high = _index(e, body.position) if keys or stochastic else ("", "")
    for node in program.graph.nodes:
        suffix = f"{node.data}{'.t' if tail else ''}"
        if node.op == "weight":
            dtype = program.inputs[node.data]
            decoded = e.decode(dtype, e.load(dtype, f"%input{node.data}", body.position))
            if not program.sums_tell and not program.results_tell:
                body.track_largest("in", decoded)
            if program.zero_nonfinite:
                finite = e.compare("olt", e.intrinsic("fabs", decoded), e.number(float("inf")))
                decoded = e.select(finite, decoded, e.number(0.0))
            e.bind(node, decoded)
        elif node.op == "param":
            e.bind(node, f"%param{suffix}")
        elif node.op == "row":
            e.bind(node, e.let(f"load {e.reals}, ptr %row{suffix}"))
        elif node.op == "uniform":
            e.bind_uniform(node, e.random_bits(_keys(e, node.data), low, high))
    stored = ""
    if isinstance(program.sink, Write):
        random = e.random_bits(_keys(e, _rounding_stream(program)), low, high) if stochastic else None
        stored = emit_write(body, program.sink, random)
    else:
        emit_reduce(body, program.sink, packs, program.results_tell)
    if body.kept:
        count_masks(e, program.sink, body.kept, ".t")
    return e.lines, body.slots, stored


def _rounding_stream(program: Program) -> int:
    """The key slot behind the experts' streams belongs to stochastic rounding."""
    return max([-1, *program.used("uniform")]) + 1


def streams(program: Program) -> int:
    """How many random keys the kernel reads: one a uniform stream, and one for stochastic rounding."""
    rounding = isinstance(program.sink, Write) and program.sink.rounding == "stochastic"
    return _rounding_stream(program) + rounding


def _keys(e: Emitter, stream: int) -> tuple[str, str]:
    suffix = ".t" if e.width == 1 else ""
    return f"%key{2 * stream}{suffix}", f"%key{2 * stream + 1}{suffix}"


def _index(e: Emitter, position: str) -> tuple[str, str]:
    """The halves of the flat indices from a position on, of which the upper ones differ in a lane that carried."""
    kind = e.vector("i32")
    first = e.let(f"add i64 %start, {position}")
    low = e.let(f"add {kind} {e.splat('i32', e.let(f'trunc i64 {first} to i32'))}, {e.lanes}")
    carried = e.let(f"icmp ult {kind} {low}, {e.lanes}")
    upper = e.splat("i32", e.let(f"trunc i64 {e.let(f'lshr i64 {first}, 32')} to i32"))
    return low, e.let(f"add {kind} {upper}, {e.let(f'zext {e.mask} {carried} to {kind}')}")


def _entry(program: Program, slots: Slots) -> list[str]:
    lines = [f"%{name} = alloca i64" for name in ("at", "block.index", "word.at", "group.at")]
    for i in range(slots.masks):
        lines.append(f"%mask{i}.at = mul i64 %mask_stride, {i}")
        lines.append(f"%mask{i} = getelementptr inbounds i{MASK_BITS}, ptr %masks, i64 %mask{i}.at")
    word = "i32" if program.real == "float" else "i64"
    for width, suffix in ((LANES, ""), (1, ".t")):
        e = Emitter(width, program.real, f"e{width}.")
        lines += [f"%sum{i}{suffix} = alloca <{width} x {program.lane}>" for i in range(slots.sums)]
        lines += [f"%count{i}{suffix} = alloca i64" for i in range(slots.counts)]
        lines += [f"store i64 0, ptr %count{i}{suffix}" for i in range(slots.counts)]
        for which in ("in", "out"):
            lines.append(f"%largest.{which}{suffix} = alloca <{width} x {word}>")
            lines.append(f"store <{width} x {word}> zeroinitializer, ptr %largest.{which}{suffix}")
        lines += [f"%row{i}{suffix} = alloca {e.reals}" for i in program.used("row")]
        for i in program.used("param"):
            lines += _splat_from(e, "params", str(i), program.real, f"%param{i}{suffix}")
        for i in sorted({node.inputs[1].data for node in program.graph.nodes if is_draw(node)}):
            e.lines.clear()
            found = e.limit(f"%param{i}{suffix}")
            lines += [*e.lines, f"{limit_name(i, width)} = add {e.vector('i32')} {found}, zeroinitializer"]
        for i in range(2 * streams(program)):
            lines += _splat_from(e, "keys", str(i), "i32", f"%key{i}{suffix}")
    for i in range(len(program.inputs)):
        lines.append(f"%input{i}.at = getelementptr inbounds ptr, ptr %inputs, i64 {i}")
        lines.append(f"%input{i} = load ptr, ptr %input{i}.at")
    if isinstance(program.sink, Reduce) and program.sink.values:
        lines += histogram.entry(len(program.sink.values), LANES, word)
        names = ["shift", "bin_mask", "low_mask"]
        names += [f"{name}{i}" for i in range(len(program.sink.values)) for name in ("low", "extent", "high")]
        for i, name in enumerate(names):
            lines.append(f"%{name}.at = getelementptr inbounds i64, ptr %selection, i64 {i}")
            wide = f"%{name}.wide" if word == "i32" else f"%{name}"
            lines.append(f"{wide} = load i64, ptr %{name}.at")
            if word == "i32":
                lines.append(f"%{name} = trunc i64 {wide} to i32")
    return [*lines, "store i64 0, ptr %block.index", "br label %block.head"]


def _splat_from(e: Emitter, array: str, index: str, scalar: str, name: str) -> list[str]:
    e.lines.clear()
    address = e.let(f"getelementptr inbounds {scalar}, ptr %{array}, i64 {index}")
    splat = e.splat(scalar, e.let(f"load {scalar}, ptr {address}"))
    return [line.replace(f"{splat} =", f"{name} =") if line.startswith(f"{splat} =") else line for line in e.lines]


_BLOCK_HEAD = (
    "block.head:",
    "%b = load i64, ptr %block.index",
    "%block.start = mul i64 %b, %block",
    "%bmore = icmp slt i64 %block.start, %n",
    "br i1 %bmore, label %block.begin, label %exit",
    "block.begin:",
    "%block.full = add i64 %block.start, %block",
    "%block.cut = icmp slt i64 %block.full, %n",
    "%block.end = select i1 %block.cut, i64 %block.full, i64 %n",
    "store i64 %block.start, ptr %at",
    "store i64 0, ptr %word.at",
)


def _segment(program: Program) -> list[str]:
    """Segments end at row boundaries where row-wise values change, else at the end of the block."""
    lines = [
        "seg.head:",
        "%sp = load i64, ptr %at",
        "%smore = icmp slt i64 %sp, %block.end",
        "br i1 %smore, label %seg.begin, label %block.done",
        "seg.begin:",
    ]
    rows = program.used("row")
    if rows:
        lines += [
            "%flat = add i64 %start, %sp",
            "%row = udiv i64 %flat, %columns",
            "%row.next = add i64 %row, 1",
            "%row.flat = mul i64 %row.next, %columns",
            "%row.end = sub i64 %row.flat, %start",
            "%row.cut = icmp slt i64 %row.end, %block.end",
            "%seg.end = select i1 %row.cut, i64 %row.end, i64 %block.end",
        ]
        for i in rows:
            lines.append(f"%rowbase{i} = mul i64 %row_stride, {i}")
            lines.append(f"%rowat{i} = add i64 %rowbase{i}, %row")
            for width, suffix in ((LANES, ""), (1, ".t")):
                e = Emitter(width, program.real, f"r{i}.{width}.")
                name = f"%rowvalue{i}{suffix}"
                lines += _splat_from(e, "rows", f"%rowat{i}", program.real, name)
                lines.append(f"store {e.reals} {name}, ptr %row{i}{suffix}")
    else:
        lines.append("%seg.end = add i64 %block.end, 0")
    return [
        *lines,
        "%seg.length = sub i64 %seg.end, %sp",
        f"%seg.whole = and i64 %seg.length, {-program.step}",
        "%vec.end = add i64 %sp, %seg.whole",
    ]


def _zero(slots: Slots, kind: str, scalar: str) -> list[str]:
    count = slots.sums
    return [
        f"store <{width} x {scalar}> zeroinitializer, ptr %{kind}{i}{suffix}"
        for i in range(count)
        for width, suffix in ((LANES, ""), (1, ".t"))
    ]


def _count_masks(sink: Write | Reduce, slots: Slots) -> list[str]:
    """Count the masks that a block has kept, 64 bits at a time; ``slots`` get the counters."""
    if not slots.masks:
        return []
    pad, e = Emitter(1, "double", "p"), Emitter(1, "double", "m")
    for i in range(slots.masks):
        place = pad.let(f"getelementptr inbounds i{MASK_BITS}, ptr %mask{i}, i64 %words")
        pad.do(f"store i64 0, ptr {place}, align 2")
    at = [e.let(f"getelementptr inbounds i{MASK_BITS}, ptr %mask{i}, i64 %group") for i in range(slots.masks)]
    slots.counts = count_masks(e, sink, [e.let(f"load i64, ptr {place}, align 2") for place in at])
    return [
        "%words = load i64, ptr %word.at",
        *pad.lines,
        "store i64 0, ptr %group.at",
        "br label %group.head",
        "group.head:",
        "%group = load i64, ptr %group.at",
        "%gmore = icmp slt i64 %group, %words",
        "br i1 %gmore, label %group.body, label %group.done",
        "group.body:",
        *e.lines,
        f"%gnext = add i64 %group, {64 // MASK_BITS}",
        "store i64 %gnext, ptr %group.at",
        "br label %group.head",
        "group.done:",
    ]


def _count_held(real: str, values: int) -> list[str]:
    """Count what is still held of every value."""
    e = Emitter(LANES, real, "g")
    for index in range(values):
        histogram.count_held(e, index)
    return e.lines


def _flush(slots: Slots, lane: str) -> list[str]:
    """Write the block's sums, lane after lane and the remainder last; add its counts to the totals."""
    e = Emitter(LANES, "double", "f")
    row = e.let(f"mul i64 %b, {slots.sums}")
    for i in range(slots.sums):
        total = _add_lanes(e, f"%sum{i}", lane, "fadd")
        if lane != "double":
            total = e.let(f"fpext {lane} {total} to double")
        place = e.let(f"getelementptr inbounds double, ptr %sums, i64 {e.let(f'add i64 {row}, {i}')}")
        e.do(f"store double {total}, ptr {place}")
    return e.lines


def _counts(slots: Slots) -> list[str]:
    """Write the counts of all vectors and remainders."""
    e = Emitter(LANES, "double", "c")
    for i in range(slots.counts):
        total = e.let(f"add i64 {e.let(f'load i64, ptr %count{i}')}, {e.let(f'load i64, ptr %count{i}.t')}")
        e.do(f"store i64 {total}, ptr {e.let(f'getelementptr inbounds i64, ptr %counts, i64 {i}')}")
    return e.lines


def _add_lanes(e: Emitter, slot: str, scalar: str, add: str) -> str:
    lanes = e.let(f"load {e.vector(scalar)}, ptr {slot}")
    total = e.let(f"extractelement {e.vector(scalar)} {lanes}, i64 0")
    for k in range(1, LANES):
        total = e.let(f"{add} {scalar} {total}, {e.let(f'extractelement {e.vector(scalar)} {lanes}, i64 {k}')}")
    rest = e.let(f"load <1 x {scalar}>, ptr {slot}.t")
    return e.let(f"{add} {scalar} {total}, {e.let(f'extractelement <1 x {scalar}> {rest}, i64 0')}")


def _largest(real: str) -> list[str]:
    e = Emitter(LANES, real, "x")
    word = e.word
    for index, which in enumerate(("in", "out")):
        lanes = e.let(f"load {e.vector(word)}, ptr %largest.{which}")
        rest = e.let(f"load <1 x {word}>, ptr %largest.{which}.t")
        largest = e.let(f"extractelement <1 x {word}> {rest}, i64 0")
        for k in range(LANES):
            lane = e.let(f"extractelement {e.vector(word)} {lanes}, i64 {k}")
            more = e.let(f"icmp ugt {word} {lane}, {largest}")
            largest = e.let(f"select i1 {more}, {word} {lane}, {word} {largest}")
        wide = largest if word == "i64" else e.let(f"zext i32 {largest} to i64")
        place = e.let(f"getelementptr inbounds i64, ptr %largest, i64 {index}")
        e.do(f"store i64 {wide}, ptr {place}")
    return e.lines
