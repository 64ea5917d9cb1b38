"""Classes made by ``frozen`` beside those of ``dataclass(frozen=True)``, which they stand for."""

import copy
import inspect
import pickle
from dataclasses import FrozenInstanceError, asdict, astuple, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import ClassVar

import pytest

from rlmerge.frozen import frozen


@frozen
class Point:
    """A point."""

    x: float
    y: float = 2.0
    tags: list = field(default_factory=list)


@frozen(slots=True)
class Slotted:
    """The same with slots."""

    x: float
    y: float = 2.0
    tags: tuple = ()


@dataclass(frozen=True)
class Standard:
    """What dataclasses make of it."""

    x: float
    y: float = 2.0
    tags: list = field(default_factory=list)


@pytest.mark.parametrize("kind", [Point, Slotted])
def test_fields_take_arguments_by_place_by_name_and_by_default(kind):
    assert kind(1.0) == kind(x=1.0, y=2.0) == kind(1.0, 2.0, kind(1.0).tags)
    assert kind(1.0) != kind(1.0, 3.0)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        kind()
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        kind(1.0, z=3)


def test_every_object_has_a_default_of_its_own():
    first, second = Point(1.0), Point(1.0)
    first.tags.append("a")
    assert second.tags == []


@pytest.mark.parametrize("kind", [Point, Slotted])
def test_nothing_can_be_assigned_or_deleted(kind):
    point = kind(1.0)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2.0
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'other'"):
        point.other = 2.0
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    assert point.x == 1.0


def test_the_text_and_the_signature_are_those_of_a_dataclass():
    assert repr(Point(1.0)) == repr(Standard(1.0)).replace("Standard", "Point")
    assert list(inspect.signature(Point).parameters) == list(inspect.signature(Standard).parameters)
    assert Point.__init__.__annotations__ == Standard.__init__.__annotations__
    assert Point.__match_args__ == ("x", "y", "tags")


def test_functions_for_dataclasses_take_them():
    point = Point(1.0, tags=["a"])
    assert is_dataclass(point)
    assert [each.name for each in fields(point)] == ["x", "y", "tags"]
    assert replace(point, x=5.0) == Point(5.0, tags=["a"])
    assert asdict(point) == {"x": 1.0, "y": 2.0, "tags": ["a"]}
    assert astuple(point) == (1.0, 2.0, ["a"])


@pytest.mark.parametrize("kind", [Point, Slotted])
def test_they_are_copied_and_pickled(kind):
    point = kind(1.0, 3.0)
    assert copy.copy(point) == copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point


def test_slots_leave_no_room_for_more():
    assert not hasattr(Slotted(1.0), "__dict__")


def test_equal_ones_have_equal_hashes_and_one_field_counts_as_one():
    @frozen
    class One:
        """A field."""

        only: object

    @frozen
    class Other:
        """The same field."""

        only: object

    assert Slotted(1.0, 3.0) == Slotted(1.0, 3.0)
    assert len({Slotted(1.0, 3.0), Slotted(1.0, 3.0), Slotted(1.0)}) == 2
    nan = float("nan")
    assert One(nan) == One(nan)  # as (nan,) == (nan,)
    assert One(1) != Other(1)
    assert One(1) != 1
    assert {One((1, 2))} == {One((1, 2))}


def test_fields_may_be_left_out_of_comparisons_hashes_texts_and_arguments():
    @frozen
    class Made:
        """Fields with options."""

        name: str
        line: int | None = field(default=None, compare=False)
        data: dict = field(default_factory=dict, hash=False)
        secret: str = field(default="s", repr=False)
        size: int = field(default=7, init=False)

    first, second = Made("a", 1), Made("a", 2)
    assert first == second
    assert hash(first) == hash(second)  # the dict does not count
    assert Made("a", data={"k": 1}) != first
    assert "secret" not in repr(first)
    assert first.size == 7
    with pytest.raises(TypeError):
        Made("a", size=8)


def test_keywords_alone():
    @frozen(kw_only=True)
    class Options:
        """Options."""

        memory: int
        seed: int = 0

    assert (Options(memory=1).memory, Options(memory=1).seed) == (1, 0)
    with pytest.raises(TypeError):
        Options(1)


def test_without_eq_an_object_equals_itself_alone():
    @frozen(eq=False)
    class Handle:
        """An object."""

        value: int

    one = Handle(1)
    assert one != Handle(1)
    assert len({one, Handle(1)}) == 2


def test_what_a_class_defines_itself_stays():
    @frozen
    class Model:
        """A class with methods of its own."""

        kind: ClassVar[str] = "model"
        name: str
        length: int = 0

        def __post_init__(self):
            object.__setattr__(self, "length", len(self.name))

        def __eq__(self, other):
            return isinstance(other, Model) and self.name.lower() == other.name.lower()

        def __hash__(self):
            return 5

        def __repr__(self):
            return "a model"

        @cached_property
        def upper(self):
            return self.name.upper()

    assert Model("Abc") == Model("aBC")
    assert (hash(Model("a")), repr(Model("a")), Model("abc").length, Model("abc").upper) == (5, "a model", 3, "ABC")
    assert [each.name for each in fields(Model)] == ["name", "length"]


def test_they_inherit_from_each_other_and_from_frozen_dataclasses_and_the_reverse():
    @frozen
    class Further(Point):
        """A record of a record."""

        z: float = 9.0

    @dataclass(frozen=True)
    class User(Point):
        """A user's class of ours."""

        z: float = 9.0

    @frozen
    class Ours(Standard):
        """Ours of a user's class."""

        z: float = 9.0

    for kind in (Further, User, Ours):
        made = kind(1.0, z=4.0)
        assert (made.x, made.y, made.tags, made.z) == (1.0, 2.0, [], 4.0)
        assert made == kind(1.0, z=4.0) != kind(1.0)
        with pytest.raises(FrozenInstanceError):
            made.z = 1.0
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
        dataclass(type("Loose", (Point,), {"__annotations__": {"w": int}}))


def test_a_field_without_default_may_not_follow_one_with():
    with pytest.raises(TypeError, match="non-default argument 'y' follows default argument"):

        @frozen
        class Wrong:
            """Wrong."""

            x: int = 0
            y: int
