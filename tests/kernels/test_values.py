import numpy as np

from rlmerge.kernels.dtypes import FLOAT32, FLOAT64
from rlmerge.kernels.values import (
    Extra,
    PerExpert,
    PerRow,
    RowField,
    Scalar,
    Static,
    Uniform,
    on_shape,
    on_tile,
    parameters,
    signature,
    typed,
)

VALUES = {"one": 0.1, "each": [1, 2], "row": [[0, 1, 2]], "mode": "x", "drawn": Uniform(2)}


def test_what_a_plain_value_is():
    assert [type(typed(value)) for value in (None, True, "a", (1, 2))] == [Static] * 4
    assert [type(typed(value)) for value in (1, 1.5, np.float32(1))] == [Scalar] * 3
    assert type(typed([1.0])) is PerExpert
    assert type(typed(np.zeros((2, 3)))) is PerRow
    assert typed(np.zeros(())) == Scalar(0.0)
    for kind in (Uniform(3), Extra((FLOAT32,)), typed("x"), typed([1, 2])):
        assert typed(kind) is kind
    table = np.zeros((1, 2, 3))
    assert typed(table).array is table
    assert on_shape({"table": table}, (4, 5), 0)["table"] is table


def test_kernel_parameters_are_lined_up_by_name():
    values = {"b": [1, 2], "a": 0.5, "mode": "x", "c": np.ones((2, 3)), "u": Uniform(2), "a2": np.zeros((1, 3))}
    params, rows = parameters(values)
    assert params.tolist() == [0.5, 1, 2]
    assert rows.tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert parameters({"mode": None})[0].shape == (0,)
    assert parameters({"mode": None})[1] is None


def test_a_kernel_depends_on_kinds_and_counts_not_on_numbers():
    assert signature(VALUES) == signature({**VALUES, "one": 7, "each": np.array([5.0, 6]), "row": [[1, 1, 1, 1]]})
    for name, other in (("one", [0.1]), ("each", [1, 2, 3]), ("row", [[1], [2]]), ("mode", "y"), ("drawn", Uniform(3))):
        assert signature(VALUES) != signature({**VALUES, name: other})


def test_shapes_on_a_flat_tile():
    ready = on_tile(VALUES, np.dtype(np.float32), start=3, count=4, columns=3)
    assert ready["one"].dtype == np.float32
    assert ready["each"].tolist() == [[1], [2]]
    assert ready["row"].tolist() == [[1, 1, 1, 2]]
    assert ready["mode"] == "x"
    assert "drawn" not in ready


def test_shapes_on_whole_rows():
    ready = on_shape(VALUES, (2, 3), start=3)
    assert ready["one"] == 0.1
    assert ready["each"].shape == (2, 1, 1)
    assert ready["row"].tolist() == [[[1], [2]]]


def test_a_row_field_is_read_in_the_arithmetic_of_the_merge():
    field = RowField(lambda xp, base, tau: tau, {}, 2)
    assert field.extra(np.dtype(np.float32)) == Extra((FLOAT32, FLOAT32))
    assert field.extra(np.dtype(np.float64)) == Extra((FLOAT64, FLOAT64))
