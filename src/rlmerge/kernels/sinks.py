"""What a kernel does with traced values: write them rounded, account for what survived, add up, count, histogram.

A sink emits IR into the loop body; its accumulators are stack slots that the optimiser turns into registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlmerge.frozen import frozen

from .dtypes import BFLOAT16, FLOAT16, DType
from .emit import Emitter, storage_type
from .histogram import hold
from .rounding import Rounding
from .trace import Node

MASK_BITS = 16
"""Bits of a mask that is kept: one for each lane of a vector."""


@dataclass
class Slots:
    """What a body uses: S sums, C counts, and M masks of a block that are counted at its end."""

    sums: int = 0
    counts: int = 0
    masks: int = 0


@frozen
class Write:
    """Round ``merged`` to ``dtype`` and store it; with a base, tell what survived.

    Counts, in order: coordinates any expert changed; of these, those whose output differs from the rounded base; then
    per expert: changed, changed and survived, unique (no other expert changed it), and changed but erased: merged to
    another value than the base that rounding took back. ``exact_base`` says that the base needs no rounding.

    Sums, per expert, in order: over unique coordinates Σ(merged−θ₀)τ before rounding, Σ(out−θ₀)τ and Στ²; over all
    coordinates Σ(out−θ₀)τ and Στ². Their lanes have the arithmetic's own precision: in float32 a block of 2^14 elements
    adds 2^10 numbers a lane, so a sum of squares is good to 2^-14 at worst (2^-10 with values for rows shorter than a
    vector).

    Without ``accounts`` nothing is counted or summed.

    ``sums_tell`` says that every input and output that is not finite shows in a sum: a base or expert in its Στ², the
    output in Σ(out−θ₀)τ. It spares looking for them in each vector.
    """

    merged: Node
    dtype: DType
    rounding: Rounding
    base: Node | None
    deltas: Sequence[Node]
    keeps_base: bool
    exact_base: bool = False
    sums_tell: bool = False
    accounts: bool = True


@frozen
class Reduce:
    """Sums of ``sums`` in float64 lanes, counts of the masks ``counts``, selection histograms of ``values`` >= 0.

    ``windowed`` ones also count, behind ``counts``, how many entries of each value are not 0, and how many lie above
    its window.
    """

    sums: Sequence[Node] = ()
    counts: Sequence[Node] = ()
    values: Sequence[Node] = ()
    windowed: bool = False


@dataclass
class Body:
    """One loop body being emitted: the emitter, the position it stands at, and where its masks are kept."""

    emitter: Emitter
    position: str
    word: str
    tail: bool
    packs: int = 0
    """As for ``Host``."""
    slots: Slots = field(default_factory=Slots)
    kept: list[str] = field(default_factory=list[str])
    products: list[tuple[str, str, str | None]] = field(default_factory=list[tuple[str, str, str | None]])
    """Two ``real`` vectors, and the mask of the lanes in which their product counts: what ``add_products`` takes."""
    stored: str = ""
    """What is to be stored, where a body leaves that to others."""

    def add_sum(self, value: str) -> None:
        """Add a ``real`` vector to the next accumulator, of doubles."""
        e = self.emitter
        kind = e.vector("double")
        wide = value if e.real == "double" else e.let(f"fpext {e.reals} {value} to {kind}")
        slot = self._slot("sum", self.slots.sums)
        self.slots.sums += 1
        # Remainders are few: in memory, their sums take no registers from the vectors'.
        volatile = " volatile" if self.tail else ""
        before = e.let(f"load{volatile} {kind}, ptr {slot}")
        e.do(f"store{volatile} {kind} {e.let(f'fadd {kind} {before}, {wide}')}, ptr {slot}")

    def add_product(self, x: str, y: str, only: str | None) -> None:
        """Add the products of two ``real`` vectors, in the lanes of mask ``only``, to the next accumulator."""
        e = self.emitter
        slot = self._slot("sum", self.slots.sums)
        self.slots.sums += 1
        volatile = " volatile" if self.tail else ""
        before = e.let(f"load{volatile} {e.reals}, ptr {slot}")
        total = e.multiply_add(x, y, before)
        if only is not None:
            total = e.select(only, total, before)
        e.do(f"store{volatile} {e.reals} {total}, ptr {slot}")

    def keep(self, mask: str) -> None:
        """Keep a mask until the end of the block, in a bit a lane; one of a remainder is counted where it is met."""
        e = self.emitter
        if self.tail:
            self.kept.append(e.let(f"zext i1 {e.let(f'bitcast {e.mask} {mask} to i1')} to i64"))
        else:
            place = e.let(f"getelementptr inbounds i{MASK_BITS}, ptr %mask{self.slots.masks}, i64 {self.word}")
            word = e.let(f"bitcast {e.mask} {mask} to i{e.width}")
            e.do(f"store i{MASK_BITS} {word}, ptr {place}")
        self.slots.masks += 1

    def track_largest(self, which: str, value: str) -> None:
        """Remember the largest magnitude word, from which NaN and infinity are recognised afterwards."""
        self.track_largest_word(which, self.magnitude_word(value))

    def track_largest_word(self, which: str, magnitude: str) -> None:
        """The same of words."""
        e = self.emitter
        kind = e.vector(e.word)
        slot = f"%largest.{which}{'.t' if self.tail else ''}"
        old = e.let(f"load {kind}, ptr {slot}")
        more = e.let(f"icmp ugt {kind} {magnitude}, {old}")
        e.do(f"store {kind} {e.let(f'select {e.mask} {more}, {kind} {magnitude}, {kind} {old}')}, ptr {slot}")

    def magnitude_word(self, value: str) -> str:
        """The bits of ``value`` without its sign."""
        e = self.emitter
        kind = e.vector(e.word)
        word = e.let(f"bitcast {e.reals} {value} to {kind}")
        return e.let(f"and {kind} {word}, {e.integer(e.word, (1 << (31 if e.word == 'i32' else 63)) - 1)}")

    def _slot(self, kind: str, index: int) -> str:
        return f"%{kind}{index}{'.t' if self.tail else ''}"


def emit_write(body: Body, sink: Write, random: str | None) -> None:
    """Round, store and account; ``random`` is a vector of 32 random bits for stochastic rounding.

    A block with a parity does not store; it leaves words [i32], with what is to be stored in the lower halves. Products
    are left to ``add_products``. Where instructions have masks, lanes of a sum are left alone; elsewhere 0 is added to
    them, if that changes no sum.
    """
    e = body.emitter
    merged = e.value(sink.merged)
    base = e.value(sink.base) if sink.base is not None else None
    deltas = [e.value(node) for node in sink.deltas] if base is not None else []
    changed = [e.compare("une", delta, e.number(0.0)) for delta in deltas]
    masked = body.packs == 512
    # Without mask registers, masks are words of ones or zeros.
    kind = e.mask if masked else e.vector(e.word)
    flags = changed if masked else [e.let(f"sext {e.mask} {mask} to {kind}") for mask in changed]
    touched, several = (flags[0], "zeroinitializer") if flags else ("", "")
    for flag in flags[1:]:
        several = e.let(f"or {kind} {several}, {e.let(f'and {kind} {touched}, {flag}')}")
        touched = e.let(f"or {kind} {touched}, {flag}")
    if base is not None and sink.keeps_base:
        chosen = touched if masked else e.let(f"icmp slt {kind} {touched}, zeroinitializer")
        merged = e.select(chosen, merged, base)
    stored = encode(e, merged, sink.dtype, random if sink.rounding == "stochastic" else None)
    if e.parity is None:
        scalar = storage_type(sink.dtype)
        address = e.let(f"getelementptr inbounds {scalar}, ptr %out, i64 {body.position}")
        e.do(f"store {e.vector(scalar)} {stored}, ptr {address}, align 1")
    body.stored = stored
    final = decode_stored(e, sink.dtype, stored)
    if not sink.sums_tell:
        body.track_largest("out", final)
    if base is None or not sink.accounts:
        return
    reference = base if sink.exact_base else decode_stored(e, sink.dtype, encode(e, base, sink.dtype, None))
    single = e.let(f"xor {kind} {several}, {e.integer('i1' if masked else e.word, 1 if masked else -1)}")
    for mask in (e.compare("une", final, reference), e.compare("une", merged, base), *changed):
        body.keep(mask)
    moved = e.let(f"fsub {e.reals} {final}, {base}")
    asked = e.let(f"fsub {e.reals} {merged}, {base}")
    for flag, delta in zip(flags, deltas, strict=True):
        own, only = delta, None
        if sink.sums_tell and not masked:
            alone = e.let(f"and {kind} {e.let(f'bitcast {e.reals} {delta} to {kind}')}, {single}")
            own = e.let(f"bitcast {kind} {alone} to {e.reals}")
        else:
            unique = e.let(f"and {kind} {flag}, {single}")
            only = unique if masked else e.let(f"icmp slt {kind} {unique}, zeroinitializer")
        body.products += [(x, own, only) for x in (asked, moved, delta)]
        body.products += [(x, delta, None) for x in (moved, delta)]


def add_products(*bodies: Body) -> list[str]:
    """Add what each body multiplies to one accumulator after the other.

    Several bodies share them, so that those that find no register are loaded and stored once for all.
    """
    lines: list[str] = []
    for products in zip(*(body.products for body in bodies), strict=True):
        for body, product in zip(bodies, products, strict=True):
            first = len(body.emitter.lines)
            body.add_product(*product)
            lines += body.emitter.lines[first:]
            del body.emitter.lines[first:]
    return lines


def decode_stored(e: Emitter, dtype: DType, stored: str) -> str:
    """What ``encode`` made, as numbers again."""
    if e.parity is None:
        return e.decode(dtype, stored)
    kind = e.vector("i32")
    upper = e.let(f"shl {kind} {stored}, {e.integer('i32', 16)}")
    return e.let(f"bitcast {kind} {upper} to {e.reals}")


def store_both(e: Emitter, position: str, first: str, second: str) -> None:
    """Store the words of two blocks of one parity each, element by element in turn."""
    kind = e.vector("i32")
    upper = e.let(f"shl {kind} {second}, {e.integer('i32', 16)}")
    address = e.let(f"getelementptr inbounds i16, ptr %out, i64 {position}")
    e.do(f"store {kind} {e.let(f'or {kind} {first}, {upper}')}, ptr {address}, align 1")


def count_masks(e: Emitter, sink: Write | Reduce, masks: Sequence[str], suffix: str = "") -> int:
    """Add what up to 64 bits of each kept mask tell to the sink's counters, and return how many there are."""
    words = list(masks)
    if isinstance(sink, Write):
        survived, moved, *changed = masks
        erased = e.let(f"and i64 {e.let(f'xor i64 {survived}, -1')}, {moved}")
        touched, several = changed[0], "0"
        for word in changed[1:]:
            several = e.let(f"or i64 {several}, {e.let(f'and i64 {touched}, {word}')}")
            touched = e.let(f"or i64 {touched}, {word}")
        single = e.let(f"xor i64 {several}, -1")
        words = [touched, e.let(f"and i64 {touched}, {survived}")]
        for word in changed:
            words.append(word)
            words += [e.let(f"and i64 {word}, {other}") for other in (survived, single, erased)]
    for index, word in enumerate(words):
        add_bits(e, word, f"%count{index}{suffix}")
    return len(words)


def add_bits(e: Emitter, word: str, slot: str) -> None:
    """Add the number of bits set in an i64 to a counter."""
    ones = e.let(f"call i64 @llvm.ctpop.i64(i64 {word})")
    total = e.let(f"add i64 {e.let(f'load i64, ptr {slot}')}, {ones}")
    e.do(f"store i64 {total}, ptr {slot}")


def emit_reduce(body: Body, sink: Reduce, tells: bool) -> None:
    """Accumulate sums, counts and histograms. With ``tells`` the largest value is kept."""
    e = body.emitter
    for node in sink.sums:
        body.add_sum(e.value(node))
    for node in sink.counts:
        body.keep(e.value(node))
    words = [body.magnitude_word(e.value(node)) for node in sink.values]
    for index, word in enumerate(words):
        if tells:
            body.track_largest_word("in", word)
        if sink.windowed:
            kind = e.vector(e.word)
            body.keep(e.let(f"icmp ne {kind} {word}, zeroinitializer"))
            body.keep(e.let(f"icmp uge {kind} {word}, {e.splat(e.word, f'%high{index}')}"))
    if words:
        hold(e, words, body.packs)


def encode(e: Emitter, value: str, dtype: DType, random: str | None) -> str:
    """``value`` rounded to storage elements of ``dtype``; equals ``rounding.encode`` bit for bit.

    With a parity they are the lower halves of words.
    """
    scalar = storage_type(dtype)
    if dtype not in (BFLOAT16, FLOAT16):
        if scalar == e.real:
            return value
        cast = "fptrunc" if e.real == "double" else "fpext"
        return e.let(f"{cast} {e.reals} {value} to {e.vector(scalar)}")
    single = _single_odd(e, value)
    if dtype is FLOAT16:
        if random is not None:
            single = _stochastic_half(e, single, random)
        return e.let(f"fptrunc {e.vector('float')} {single} to {e.vector('half')}")
    return _brain(e, single, random)


def _brain(e: Emitter, single: str, random: str | None) -> str:
    kind, floats = e.vector("i32"), e.vector("float")
    word = e.let(f"bitcast {floats} {single} to {kind}")
    upper = e.let(f"lshr {kind} {word}, {e.integer('i32', 16)}")
    if random is None:
        odd = e.let(f"and {kind} {upper}, {e.integer('i32', 1)}")
        push = e.let(f"add {kind} {odd}, {e.integer('i32', 0x7FFF)}")
    else:
        push = e.let(f"lshr {kind} {random}, {e.integer('i32', 16)}")
    rounded = e.let(f"lshr {kind} {e.let(f'add {kind} {word}, {push}')}, {e.integer('i32', 16)}")
    quiet = e.let(f"or {kind} {upper}, {e.integer('i32', 0x40)}")
    nan = e.let(f"fcmp uno {floats} {single}, {single}")
    chosen = e.let(f"select {e.mask} {nan}, {kind} {quiet}, {kind} {rounded}")
    return chosen if e.parity is not None else e.let(f"trunc {kind} {chosen} to {e.vector('i16')}")


def _single_odd(e: Emitter, value: str) -> str:
    if e.real == "float":
        return value
    kind, floats = e.vector("i32"), e.vector("float")
    nearest = e.let(f"fptrunc {e.reals} {value} to {floats}")
    back = e.let(f"fpext {floats} {nearest} to {e.reals}")
    word = e.let(f"bitcast {floats} {nearest} to {kind}")
    above = e.compare("ogt", e.intrinsic("fabs", back), e.intrinsic("fabs", value))
    less = e.let(f"sub {kind} {word}, {e.integer('i32', 1)}")
    word = e.let(f"select {e.mask} {above}, {kind} {less}, {kind} {word}")
    odd = e.let(f"or {kind} {word}, {e.integer('i32', 1)}")
    inexact = e.compare("one", back, value)
    word = e.let(f"select {e.mask} {inexact}, {kind} {odd}, {kind} {word}")
    return e.let(f"bitcast {kind} {word} to {floats}")


def _stochastic_half(e: Emitter, single: str, random: str) -> str:
    kind = e.vector("i32")
    half = Emitter(e.width, "float", "")
    half.let, half.do = e.let, e.do  # the same block, with float instead of double arithmetic
    floats = half.reals
    word = e.let(f"bitcast {floats} {single} to {kind}")
    dropped, kept = e.integer("i32", 19), e.integer("i32", 0xFFFFE000)
    pushed = e.let(f"add {kind} {word}, {e.let(f'lshr {kind} {random}, {dropped}')}")
    normal = e.let(f"bitcast {kind} {e.let(f'and {kind} {pushed}, {kept}')} to {floats}")
    size = half.intrinsic("fabs", single)
    steps = e.let(f"fmul {floats} {size}, {half.number(2.0**24)}")
    whole = half.intrinsic("floor", steps)
    up = half.compare("ogt", e.let(f"fsub {floats} {steps}, {whole}"), half.unit(random))
    whole = half.select(up, e.let(f"fadd {floats} {whole}, {half.number(1.0)}"), whole)
    small = e.let(f"fmul {floats} {whole}, {half.number(2.0**-24)}")
    name = f"@llvm.copysign.v{e.width}f32"
    small = e.let(f"call {floats} {name}({floats} {small}, {floats} {single})")
    tiny = half.compare("olt", size, half.number(2.0**-14))
    rounded = half.select(tiny, small, normal)
    finite = half.compare("olt", size, half.number(float("inf")))
    return half.select(finite, rounded, single)
