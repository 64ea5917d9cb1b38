"""LLVM IR for traced nodes: each node becomes a few vector instructions on W coordinates at once.

IEEE arithmetic only: no fast-math flags, so that a result never depends on the vector width, the tile or the machine.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping

from .dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, DType
from .random import HIGH_WORD, MIXER
from .trace import Node

LANES = 16
"""Elements of a vector."""

_BINARY = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_COMPARE = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_STORAGE = {BFLOAT16: "i16", FLOAT16: "half", FLOAT32: "float", FLOAT64: "double"}


def storage_type(dtype: DType) -> str:
    """IR type of one stored element."""
    return _STORAGE[dtype]


def is_draw(node: Node) -> bool:
    """Whether a node compares a uniform number with a parameter, as what drops entries at random does."""
    return node.op == "lt" and node.inputs[0].op == "uniform" and node.inputs[1].op == "param"


def limit_name(param: int, width: int) -> str:
    """The value of a parameter as ``Emitter.limit``."""
    return f"%limit{param}{'.t' if width == 1 else ''}"


class Emitter:
    """Collects IR lines for one straight-line block on vectors of ``width`` elements of ``real`` (float or double).

    With a ``parity`` the elements are every second one of twice as many, from the first (0) or the second (1) on, and
    of type bfloat16 where they are stored: halves of words of 32 bits, which come apart without a shuffle.
    """

    def __init__(self, width: int, real: str, prefix: str, parity: int | None = None) -> None:
        self.width = width
        self.real = real
        self.prefix = prefix
        self.parity = parity
        self.lines: list[str] = []
        self._values: dict[int, str] = {}
        self._whole: dict[int, str] = {}
        self._count = 0

    def vector(self, scalar: str) -> str:
        """IR vector type of ``width`` elements."""
        return f"<{self.width} x {scalar}>"

    @property
    def reals(self) -> str:
        return self.vector(self.real)

    @property
    def mask(self) -> str:
        return self.vector("i1")

    @property
    def word(self) -> str:
        """The integer type as wide as ``real``."""
        return "i32" if self.real == "float" else "i64"

    def let(self, expression: str) -> str:
        """A new value defined by ``expression``."""
        self._count += 1
        name = f"%{self.prefix}{self._count}"
        self.lines.append(f"{name} = {expression}")
        return name

    def do(self, statement: str) -> None:
        """An instruction without a value."""
        self.lines.append(statement)

    def splat(self, scalar: str, value: str) -> str:
        """``value`` of type ``scalar`` in every lane."""
        first = self.let(f"insertelement {self.vector(scalar)} poison, {scalar} {value}, i64 0")
        zero = f"<{self.width} x i32> zeroinitializer"
        return self.let(f"shufflevector {self.vector(scalar)} {first}, {self.vector(scalar)} poison, {zero}")

    def integer(self, scalar: str, value: int) -> str:
        """An integer constant in every lane."""
        return "<" + ", ".join([f"{scalar} {value}"] * self.width) + ">"

    def number(self, value: float) -> str:
        """A float constant in every lane, rounded to ``real``."""
        if self.real == "float":
            value = ctypes.c_float(value).value
        word = struct.unpack("<Q", struct.pack("<d", value))[0]
        return "<" + ", ".join([f"{self.real} 0x{word:016X}"] * self.width) + ">"

    def bind(self, tile: Node, value: str) -> None:
        """Give the leaf ``tile`` the IR ``value``."""
        self._values[tile.index] = value

    def bind_uniform(self, tile: Node, bits: str) -> None:
        """Give the leaf ``tile`` the uniform numbers in [0, 1) that are made of 32 random bits."""
        kind = self.vector("i32")
        self._whole[tile.index] = self.let(f"lshr {kind} {bits}, {self.integer('i32', 8)}")
        self.bind(tile, self._unit(self._whole[tile.index]))

    def load(self, dtype: DType, pointer: str, position: str) -> str:
        """Stored elements from ``position`` on."""
        scalar = storage_type(dtype)
        address = self.let(f"getelementptr inbounds {scalar}, ptr {pointer}, i64 {position}")
        return self.let(f"load {self.vector(scalar if self.parity is None else 'i32')}, ptr {address}, align 1")

    def decode(self, dtype: DType, stored: str) -> str:
        """Stored elements as ``real``."""
        scalar, single = storage_type(dtype), self.vector("float")
        if dtype is BFLOAT16:
            kind = self.vector("i32")
            wide = stored if self.parity is not None else self.let(f"zext {self.vector('i16')} {stored} to {kind}")
            stored, scalar = self.let(f"bitcast {kind} {self._upper(wide)} to {single}"), "float"
        if scalar == self.real:
            return stored
        cast = "fptrunc" if scalar == "double" else "fpext"
        return self.let(f"{cast} {self.vector(scalar)} {stored} to {self.reals}")

    def _upper(self, words: str) -> str:
        """The halves of words that are this block's, as upper halves of words that are otherwise 0."""
        if self.parity == 1:
            return self.let(f"and {self.vector('i32')} {words}, {self.integer('i32', 0xFFFF0000)}")
        return self.let(f"shl {self.vector('i32')} {words}, {self.integer('i32', 16)}")

    @property
    def lanes(self) -> str:
        """How many elements behind the first each lane's is, an i32 vector constant."""
        step, first = (1, 0) if self.parity is None else (2, self.parity)
        return "<" + ", ".join(f"i32 {first + step * k}" for k in range(self.width)) + ">"

    def value(self, tile: Node) -> str:
        """The IR value of ``tile``; its operands are emitted first, once."""
        pending = [tile]
        while pending:
            top = pending[-1]
            missing = [x for x in reversed(top.inputs) if x.index not in self._values]
            if top.index not in self._values and not missing:
                self._values[top.index] = self._emit(top, [self._values[x.index] for x in top.inputs])
            pending += missing
            if not missing:
                pending.pop()
        return self._values[tile.index]

    def _emit(self, tile: Node, args: list[str]) -> str:
        op, real = tile.op, self.reals
        if op in _BINARY:
            return self.let(f"{_BINARY[op]} {real} {args[0]}, {args[1]}")
        if is_draw(tile) and tile.inputs[0].index in self._whole:
            drawn, limit = self._whole[tile.inputs[0].index], limit_name(tile.inputs[1].data, self.width)
            return self.let(f"icmp ult {self.vector('i32')} {drawn}, {limit}")
        if op in _COMPARE:
            return self.compare(_COMPARE[op], args[0], args[1])
        if op in ("and", "or"):
            return self.let(f"{op} {self.mask} {args[0]}, {args[1]}")
        if op == "not":
            return self.let(f"xor {self.mask} {args[0]}, {self.integer('i1', 1)}")
        if op == "where":
            kind = self.mask if tile.is_bool else real
            return self.let(f"select {self.mask} {args[0]}, {kind} {args[1]}, {kind} {args[2]}")
        if op == "constant":
            return self.number(float(tile.data))
        if op == "truth":
            return self.integer("i1", int(tile.data))
        if op == "neg":
            return self.let(f"fneg {real} {args[0]}")
        if op == "abs":
            return self.intrinsic("fabs", args[0])
        if op == "sqrt":
            return self.intrinsic("sqrt", args[0])
        if op == "sign":
            return self._sign(args[0])
        if op in ("minimum", "maximum"):
            return self._extreme("olt" if op == "minimum" else "ogt", args[0], args[1])
        if op == "isfinite":
            return self.compare("olt", self.intrinsic("fabs", args[0]), self.number(float("inf")))
        raise AssertionError(f"unbound leaf {op} {tile.data}")

    def compare(self, predicate: str, x: str, y: str) -> str:
        """A mask from an ordered or unordered float comparison."""
        return self.let(f"fcmp {predicate} {self.reals} {x}, {y}")

    def select(self, mask: str, x: str, y: str) -> str:
        """Lane-wise choice between two ``real`` vectors."""
        return self.let(f"select {self.mask} {mask}, {self.reals} {x}, {self.reals} {y}")

    def multiply_add(self, x: str, y: str, z: str) -> str:
        """``x·y + z``, rounded once, also by processors that have no instruction for it."""
        arguments = ", ".join(f"{self.reals} {value}" for value in (x, y, z))
        return self.let(f"call {self.reals} @llvm.fma.v{self.width}{_SUFFIX[self.real]}({arguments})")

    def intrinsic(self, name: str, x: str) -> str:
        """A unary LLVM intrinsic; the module declares it."""
        return self.let(f"call {self.reals} @llvm.{name}.v{self.width}{_SUFFIX[self.real]}({self.reals} {x})")

    def _sign(self, x: str) -> str:
        zero = self.number(0.0)
        below = self.select(self.compare("olt", x, zero), self.number(-1.0), x)
        above = self.select(self.compare("ogt", x, zero), self.number(1.0), below)
        return self.select(self.compare("oeq", x, zero), zero, above)

    def _extreme(self, predicate: str, x: str, y: str) -> str:
        first = self.let(f"or {self.mask} {self.compare(predicate, x, y)}, {self.compare('uno', x, x)}")
        return self.select(first, x, y)

    def random_bits(self, key: tuple[str, str], low: str, high: str) -> str:
        """32 random bits a lane from two key vectors and the halves of the flat index; equals ``random.bits``."""
        kind = self.vector("i32")
        word = self._mix(self.let(f"xor {kind} {low}, {key[0]}"))
        folded = self.let(f"mul {kind} {high}, {self.integer('i32', HIGH_WORD)}")
        second = self.let(f"add {kind} {folded}, {key[1]}")
        return self._mix(self.let(f"xor {kind} {word}, {second}"))

    def _mix(self, word: str) -> str:
        kind = self.vector("i32")
        for shift, multiplier in MIXER:
            shifted = self.let(f"lshr {kind} {word}, {self.integer('i32', shift)}")
            word = self.let(f"xor {kind} {word}, {shifted}")
            if multiplier is not None:
                word = self.let(f"mul {kind} {word}, {self.integer('i32', multiplier)}")
        return word

    def unit(self, bits: str) -> str:
        """32 random bits as a uniform number in [0, 1)."""
        return self._unit(self.let(f"lshr {self.vector('i32')} {bits}, {self.integer('i32', 8)}"))

    def _unit(self, upper: str) -> str:
        whole = self.let(f"uitofp {self.vector('i32')} {upper} to {self.reals}")
        return self.let(f"fmul {self.reals} {whole}, {self.number(2.0**-24)}")

    def limit(self, value: str) -> str:
        """How many of the 2^24 uniform numbers are less than ``value``: what to compare their whole numbers with."""
        scaled = self.intrinsic("ceil", self.let(f"fmul {self.reals} {value}, {self.number(2.0**24)}"))
        most = self.number(2.0**24)
        scaled = self.select(self.compare("olt", scaled, most), scaled, most)
        zero = self.number(0.0)
        # NaN is larger than nothing.
        found = self.select(self.compare("ogt", value, zero), scaled, zero)
        return self.let(f"fptoui {self.reals} {found} to {self.vector('i32')}")


_SUFFIX: Mapping[str, str] = {"float": "f32", "double": "f64"}


def declarations(real: str, widths: tuple[int, ...]) -> str:
    """Declarations of every intrinsic an emitter may call."""
    lines: list[str] = []
    for width in widths:
        for kind in dict.fromkeys((real, "float")):
            vector, suffix = f"<{width} x {kind}>", f"v{width}{_SUFFIX[kind]}"
            lines += [f"declare {vector} @llvm.{name}.{suffix}({vector})" for name in ("fabs", "sqrt", "floor", "ceil")]
            lines.append(f"declare {vector} @llvm.copysign.{suffix}({vector}, {vector})")
            lines.append(f"declare {vector} @llvm.fma.{suffix}({vector}, {vector}, {vector})")
    return "\n".join(lines)


def loop(name: str, end: str, *body: str, start: str = "0", step: int = 1) -> list[str]:
    """IR of ``body`` for ``%name`` from ``start`` up to ``end``, with its slot ``%name.at``, an i64.

    The body may hold loops of other names.
    """
    return [
        f"store i64 {start}, ptr %{name}.at",
        f"br label %{name}.head",
        f"{name}.head:",
        f"%{name} = load i64, ptr %{name}.at",
        f"%{name}.more = icmp ult i64 %{name}, {end}",
        f"br i1 %{name}.more, label %{name}.body, label %{name}.done",
        f"{name}.body:",
        *body,
        f"%{name}.next = add i64 %{name}, {step}",
        f"store i64 %{name}.next, ptr %{name}.at",
        f"br label %{name}.head",
        f"{name}.done:",
    ]
