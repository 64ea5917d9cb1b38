"""The loop around a traced formula, as an LLVM module: decode, compute, and hand each vector to the sinks.

Blocks: sums are kept in ``LANES`` lanes per block of fixed length and added up lane after lane at its end, the
remainder last. Because tiles start at block boundaries, a sum never depends on how the tensor was cut.
"""

from __future__ import annotations

from functools import cached_property

from rlmerge.frozen import frozen

from . import histogram
from .dtypes import BFLOAT16, DType
from .emit import LANES, Emitter, declarations, is_draw, limit_name
from .sinks import (
    MASK_BITS,
    Body,
    Reduce,
    Slots,
    Write,
    add_products,
    count_masks,
    emit_reduce,
    emit_write,
    store_both,
)
from .totals import count_kept, count_rest, write_counts, write_largest, write_sums, zero_sums
from .trace import Graph, carried

SIGNATURE = (
    "i64 %n, i64 %start, i64 %block, i64 %columns, ptr %inputs, ptr %out, ptr %params, ptr %rows, i64 %row_stride, "
    "ptr %keys, ptr %sums, ptr %counts, ptr %largest, ptr %histograms, ptr %side, ptr %side_counts, "
    "i64 %side_capacity, ptr %selection, ptr %masks, i64 %mask_stride, ptr %held"
)


@frozen
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


def module(program: Program, packs: int = 0) -> tuple[str, Slots]:
    """LLVM IR of ``@kernel`` and how many sums and counts it accumulates; ``packs`` as for ``Host``."""
    stochastic = isinstance(program.sink, Write) and program.sink.rounding == "stochastic"
    vector, slots = _vectors(program, stochastic, packs)
    rest = _body(program, Emitter(1, program.real, "t"), "%tword", stochastic, packs)
    tail = [*rest.emitter.lines, *add_products(rest)]
    counting = count_kept(program.sink, slots)
    values = len(program.sink.values) if isinstance(program.sink, Reduce) else 0
    word = "i32" if program.real == "float" else "i64"
    text = "\n".join(
        [
            declarations(program.real, (LANES, 1)),
            "declare i64 @llvm.ctpop.i64(i64)",
            *([histogram.function(word, packs)] if values else []),
            f"define void @kernel({SIGNATURE}) {{",
            "entry:",
            *_entry(program, slots),
            *_BLOCK_HEAD,
            *zero_sums(slots, program.lane),
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
            *write_sums(slots, program.lane),
            "%bnext = add i64 %b, 1",
            "store i64 %bnext, ptr %block.index",
            "br label %block.head",
            "exit:",
            *count_rest(program.real, values),
            *write_counts(slots),
            *write_largest(program.real),
            "ret void",
            "}",
        ]
    )
    return text, slots


def _vectors(program: Program, stochastic: bool, packs: int) -> tuple[list[str], Slots]:
    """The loop body for whole vectors: one, or two that take the elements in turn."""
    if not program.is_paired:
        body = _body(program, Emitter(LANES, program.real, "v"), "%vword", stochastic, packs)
        return [*body.emitter.lines, *add_products(body)], body.slots
    first = _body(program, Emitter(LANES, program.real, "va", 0), "%vword", stochastic, packs)
    second = _body(program, Emitter(LANES, program.real, "vb", 1), "%vword1", stochastic, packs)
    e = Emitter(LANES, program.real, "vc")
    if isinstance(program.sink, Write):
        store_both(e, "%vp", first.stored, second.stored)
    products = add_products(first, second)
    lines = [*first.emitter.lines, "%vword1 = add i64 %vword, 1", *second.emitter.lines, *e.lines, *products]
    return lines, first.slots


def _body(program: Program, e: Emitter, word: str, stochastic: bool, packs: int) -> Body:
    """A block of the loop; its products are still to be added up."""
    tail = e.width == 1
    body = Body(e, "%tp" if tail else "%vp", word, tail, packs)
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
    if isinstance(program.sink, Write):
        random = e.random_bits(_keys(e, _rounding_stream(program)), low, high) if stochastic else None
        emit_write(body, program.sink, random)
    else:
        emit_reduce(body, program.sink, program.results_tell)
    if body.kept:
        count_masks(e, program.sink, body.kept, ".t")
    return body


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
