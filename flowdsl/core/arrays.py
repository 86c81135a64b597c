"""Arrays and frames of numpy, pandas and polars, reduced to plain values that have a canonical encoding.

None of the three is imported here. A value of one of their types proves that its library is loaded, so it is
taken from ``sys.modules``. The names of types are our own, because those libraries move theirs between
releases.

These count: the type, the dtype (byte order normalised), the shape, the values, labels and names. These do
not: memory order, strides, flags, ``attrs``, an index's ``freq``. All NaNs are one. -0.0 and 0.0 are two.
None, NaN and NA are three.
"""

import sys
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

__all__ = ["Reduction", "reduction_of"]

Reduction = Callable[[Any], object]
"""Turns a value into plain ones (tuples, strings, bytes, numbers) that say the same."""

_BLOB = 65_536  # bytes; larger contents are hashed, so that a large array is not copied from list to list


def reduction_of(cls: type) -> tuple[str, Reduction] | None:
    """Find how instances of *cls* are reduced.

    Returns a stable name of the type and its reduction, or ``None`` if *cls* is not one of the array
    libraries'.

    >>> reduction_of(int) is None
    True
    """
    library = cls.__module__.partition(".")[0]
    if library not in _FINDERS or library not in sys.modules:
        return None
    return _FINDERS[library](sys.modules[library], cls)


def _blob(data: memoryview) -> object:
    if data.nbytes <= _BLOB:
        return data.tobytes()
    return ("blake2b", data.nbytes, blake2b(data, digest_size=32).digest())


# ----------------------------------------------------------------------------------------------- numpy


def _numpy(np: Any, cls: type) -> tuple[str, Reduction] | None:
    if issubclass(cls, np.ma.MaskedArray):
        return "numpy.MaskedArray", _masked_array
    if issubclass(cls, np.ndarray):  # matrix, recarray and memmap are not the same as ndarray
        return f"numpy.{cls.__name__}", lambda value: _array(np.asarray(value))
    if issubclass(cls, np.generic):
        return "numpy.scalar", lambda value: _array(np.asarray(value))
    if issubclass(cls, np.dtype):
        return "numpy.dtype", _dtype
    return None


def _dtype(dtype: Any) -> object:
    if dtype.names is not None:
        return tuple((name, _dtype(dtype.fields[name][0])) for name in dtype.names)
    if dtype.subdtype is not None:
        return (_dtype(dtype.base), dtype.shape)
    return dtype.kind if dtype.kind in "OT" else dtype.newbyteorder("<").str


def _array(array: Any) -> object:
    """``(dtype, shape, contents)`` of an array, which may have no dimension."""
    np = sys.modules["numpy"]
    dtype, kind = array.dtype, array.dtype.kind
    if dtype.names is not None:  # field by field, because the padding between fields may hold anything
        return (_dtype(dtype), array.shape, tuple(_array(array[name]) for name in dtype.names))
    flat = array.reshape(-1)
    if kind in "OT":
        return (_dtype(dtype), array.shape, flat.tolist())
    if kind in "fc" and dtype.itemsize > (8 if kind == "f" else 16):
        raise TypeError(f"{dtype} differs between platforms; convert it with .astype('f8') or .astype('c16')")
    flat = np.ascontiguousarray(flat, dtype.newbyteorder("<"))
    if kind in "fc" and np.isnan(flat).any():
        flat = flat.copy()
        parts = flat.view(f"<f{dtype.itemsize // 2}") if kind == "c" else flat
        parts[np.isnan(parts)] = np.nan
    data = memoryview(flat.view(np.uint8)) if flat.nbytes else memoryview(b"")
    return (_dtype(dtype), array.shape, _blob(data))


def _masked_array(value: Any) -> object:
    np = sys.modules["numpy"]
    mask = np.ma.getmaskarray(value)
    data = np.array(np.ma.getdata(value), copy=True)
    data[mask] = np.zeros((), data.dtype)  # a masked item may hold anything
    return (_array(data), _array(mask))


# --------------------------------------------------------------------------------------------- pandas


def _pandas(pd: Any, cls: type) -> tuple[str, Reduction] | None:
    for base, name, reduce in (
        (pd.DataFrame, "DataFrame", _frame),
        (pd.Series, "Series", _series),
        (pd.MultiIndex, "MultiIndex", _multi_index),
        (pd.Index, "Index", _index),
        (
            pd.api.extensions.ExtensionArray,
            "array",
            lambda value: _column(sys.modules["pandas"].Series(value)),
        ),
        (pd.Timestamp, "Timestamp", _timestamp),
        (pd.Timedelta, "Timedelta", _nanoseconds),
        (pd.Period, "Period", lambda value: (value.freqstr, value.ordinal)),
        (pd.Interval, "Interval", lambda value: (value.closed, value.left, value.right)),
        (type(pd.NaT), "NaT", lambda _value: ()),
        (type(pd.NA), "NA", lambda _value: ()),
    ):
        if issubclass(cls, base):
            return f"pandas.{name}", reduce
    return None


def _frame(value: Any) -> object:
    columns = tuple(_column(value.iloc[:, place]) for place in range(value.shape[1]))
    labels = value.columns
    if labels.nlevels == 1 and labels.dtype.kind == "O":  # pandas 2 keeps texts as objects, pandas 3 does not
        return (_any_index(value.index), labels.name, labels.tolist(), columns)
    return (_any_index(value.index), _any_index(labels), columns)


def _series(value: Any) -> object:
    return (value.name, _any_index(value.index), _column(value))


def _any_index(value: Any) -> object:
    return _index(value) if value.nlevels == 1 else _multi_index(value)


def _index(value: Any) -> object:
    return (value.name, _column(value))


def _multi_index(value: Any) -> object:
    return tuple(_index(value.get_level_values(level)) for level in range(value.nlevels))


_UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def _nanoseconds(value: Any) -> int:
    """Whole nanoseconds: the unit is only how a time is kept. Python's integers can hold any year."""
    return int(value.asm8.view("i8")) * _UNITS[value.unit]


def _timestamp(value: Any) -> object:
    """An aware time as its instant, any other as its local time."""
    return ("naive" if value.tzinfo is None else "utc", _nanoseconds(value))


def _column(values: Any) -> object:
    """``(dtype, contents)`` of a series or an index without levels."""
    np = sys.modules["numpy"]
    dtype = values.dtype
    if isinstance(dtype, np.dtype):
        return _array(np.asarray(values))
    if hasattr(dtype, "categories") and hasattr(dtype, "ordered"):
        categories = dtype.categories.tolist()
        kinds = str(dtype.categories.dtype)
        known = ("ordered", categories) if dtype.ordered else ("unordered", frozenset(categories))
        return ("category", kinds, known, values.tolist())
    if hasattr(dtype, "tz"):
        return (str(dtype), _array(np.asarray(values, dtype=f"M8[{dtype.unit}]")))
    return (str(dtype), values.tolist())


# --------------------------------------------------------------------------------------------- polars


def _polars(pl: Any, cls: type) -> tuple[str, Reduction] | None:
    if issubclass(cls, pl.DataFrame):
        return "polars.DataFrame", _polars_frame
    if issubclass(cls, pl.Series):
        return "polars.Series", _polars_series
    return None


def _polars_frame(value: Any) -> object:
    return (value.height, tuple(_polars_series(column) for column in value.get_columns()))


def _polars_series(value: Any) -> object:
    dtype = str(value.dtype)
    if "Categorical" in dtype or "Enum" in dtype:
        return (value.name, dtype, value.to_list())
    # Times stay the integers that they are. As Python's times they would lose their nanoseconds.
    return (value.name, dtype, value.to_physical().to_list())


_FINDERS: dict[str, Callable[[Any, type], tuple[str, Reduction] | None]] = {
    "numpy": _numpy,
    "pandas": _pandas,
    "polars": _polars,
}
