"""Canonical encoding of numpy arrays, pandas and polars frames: by dtype, shape, labels and values."""

import copy
import hashlib
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdsl.core.encoding import encode
from flowdsl.core.unkeyable import Unkeyable

np = pytest.importorskip("numpy")
hnp = pytest.importorskip("hypothesis.extra.numpy")
pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.floating_dtypes(sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(sizes=(64, 128)),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
    hnp.byte_string_dtypes(min_len=1, max_len=4),
    hnp.unicode_string_dtypes(min_len=1, max_len=4),
)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def distinct(*values: Any) -> bool:
    return len({encode(value) for value in values}) == len(values)


# ---------------------------------------------------------------------------------------------- numpy


@given(arrays)
def test_memory_layout_does_not_count(array: Any) -> None:
    """Memory order, byte order, strides and copies do not change the encoding of an array."""
    code = encode(array)
    padded = np.zeros((*array.shape, 2), array.dtype)
    padded[..., 0] = array
    same = [
        np.array(array, order="F"),
        array.astype(array.dtype.newbyteorder(">")),
        padded[..., 0],
        copy.deepcopy(array),
        pickle.loads(pickle.dumps(array)),
    ]
    assert {encode(other) for other in same} == {code}


@given(arrays, st.data())
def test_values_shape_and_dtype_count(array: Any, data: st.DataObject) -> None:
    """Another value, shape, dtype or kind of container changes the encoding."""
    assert distinct(array, array[None], array.tolist(), array.astype("O"))
    if array.size:
        place = data.draw(st.integers(0, array.size - 1))
        other = array.copy()
        other.reshape(-1)[place] = data.draw(hnp.from_dtype(array.dtype))
        changed = repr(other.reshape(-1)[place]) != repr(array.reshape(-1)[place])
        assert (encode(other) != encode(array)) == changed


def test_numpy_scalars_are_their_own_values() -> None:
    """A numpy scalar differs from a Python number, from another width, and from a zero-dimensional array."""
    assert distinct(1, np.int64(1), np.int32(1), np.float64(1), 1.0, np.bool_(True), True, np.array(1))
    assert distinct("a", np.str_("a"), b"a", np.bytes_(b"a"), np.array("a"))
    assert encode(np.longlong(1)) == encode(np.int64(1))
    assert encode(np.float64(1)) == encode(np.array([1.0])[0])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16"])
def test_zeros_are_two_and_nans_are_one_in_arrays(dtype: str) -> None:
    """In arrays -0.0 differs from 0.0, and all NaNs are equal, also in parts of complex numbers."""
    zero, nan = np.zeros(2, dtype), np.full(2, np.nan, dtype)
    negative = -nan
    assert distinct(zero, -zero, nan)
    assert encode(np.frombuffer(negative.tobytes(), dtype)) == encode(nan.copy()) or dtype.startswith("c")
    if dtype.startswith("c"):
        assert encode(np.array([complex(1, -np.nan)], dtype)) == encode(np.array([complex(1, np.nan)], dtype))


def test_large_arrays_are_hashed_by_content() -> None:
    """Each byte of an array counts, even above the size that is copied."""
    array = np.arange(100_000)
    other = array.copy()
    other[-1] = 0
    assert len(encode(array)) < 200
    assert distinct(array, other, array[:-1], array.reshape(2, -1))


def test_object_arrays_count_by_element() -> None:
    """An object array is encoded by its elements, and refused if an element has no encoding."""
    assert encode(np.array(["a", 1, None], "O")) == encode(np.array(["a", 1, None], "O"))
    assert distinct(np.array(["a", 1], "O"), np.array(["a", 1.0], "O"), np.array([["a", 1]], "O"))
    with pytest.raises(Unkeyable) as caught:
        encode({"data": np.array([object()], "O")})
    assert caught.value.where == "['data'][…]"


def test_structured_arrays_count_by_field() -> None:
    """The fields and names of a structured array count; its padding does not."""
    packed, aligned = np.dtype([("a", "i1"), ("b", "f8")]), np.dtype([("a", "i1"), ("b", "f8")], align=True)
    noise = np.frombuffer(b"\x01" + b"\xff" * 7 + np.float64(2).tobytes(), aligned)
    assert encode(noise) == encode(np.array([(1, 2.0)], packed))
    assert distinct(noise, np.array([(1, 2.0)], [("a", "i1"), ("c", "f8")]), np.array([(1, -0.0)], packed))
    assert encode(noise[0]) != encode(noise)


def test_masked_arrays_count_by_what_is_seen() -> None:
    """The mask of a masked array counts; the values under it do not."""
    seen = np.ma.array([1, 2], mask=[False, True])
    assert encode(seen) == encode(np.ma.array([1, 99], mask=[False, True]))
    assert distinct(seen, np.ma.array([1, 0]), np.array([1, 0]))


class Image(np.ndarray):  # type: ignore[misc]
    pass


def test_array_subclasses_and_dtypes() -> None:
    """A subclass of ndarray differs from ndarray, and a dtype is a value of its own."""
    array = np.arange(4).reshape(2, 2)
    assert distinct(array, array.view(Image), array.view(np.recarray))
    assert distinct(np.dtype("f8"), np.dtype("f4"), np.dtype([("a", "f8")]), np.float64, "<f8")
    assert encode(np.dtype(">f8")) == encode(np.dtype("<f8"))


def test_long_doubles_are_refused() -> None:
    """A type whose size depends on the platform is refused."""
    if np.dtype(np.longdouble).itemsize == 8:
        pytest.skip("long double is double here")
    with pytest.raises(Unkeyable, match="differs between platforms"):
        encode(np.zeros(1, np.longdouble))


def test_what_numpy_has_besides_arrays() -> None:
    """A function of numpy is encoded by its path; a random generator is refused."""
    assert distinct(np.mean, np.median, np.int64)
    with pytest.raises(Unkeyable):
        encode(np.random.default_rng(1))


# --------------------------------------------------------------------------------------------- pandas

FRAMES = {
    "plain": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", None]}),
    "floats": lambda: pd.DataFrame({"a": [1.0, float("nan")], "b": ["x", None]}),
    "other value": lambda: pd.DataFrame({"a": [1, 3], "b": ["x", None]}),
    "other order": lambda: pd.DataFrame({"b": ["x", None], "a": [1, 2]}),
    "other name": lambda: pd.DataFrame({"a": [1, 2], "c": ["x", None]}),
    "other index": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[5, 6]),
    "named index": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", None]}).rename_axis("id"),
    "empty": lambda: pd.DataFrame(),
    "no rows": lambda: pd.DataFrame({"a": []}),
    "no columns": lambda: pd.DataFrame(index=[1, 2]),
    "doubled columns": lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "nullable": lambda: pd.DataFrame({"a": pd.array([1, None], "Int64")}),
    "not nullable": lambda: pd.DataFrame({"a": [1, 0]}),
    "two levels": lambda: pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, "x")])),
    "naive times": lambda: pd.DataFrame({"a": pd.date_range("2024-01-01", periods=2)}),
    "utc times": lambda: pd.DataFrame({"a": pd.date_range("2024-01-01", periods=2, tz="UTC")}),
    "zoned times": lambda: pd.DataFrame({"a": pd.date_range("2024-01-01", periods=2, tz="Asia/Tokyo")}),
    "periods": lambda: pd.DataFrame({"a": pd.period_range("2024-01", periods=2, freq="M")}),
    "intervals": lambda: pd.DataFrame({"a": pd.interval_range(0, 2)}),
    "categories": lambda: pd.DataFrame({"a": pd.Categorical(["x", None], ["x", "y"])}),
    "fewer categories": lambda: pd.DataFrame({"a": pd.Categorical(["x", None], ["x"])}),
    "ordered": lambda: pd.DataFrame({"a": pd.Categorical(["x", None], ["x", "y"], ordered=True)}),
    "series": lambda: pd.Series([1, 2]),
    "named series": lambda: pd.Series([1, 2], name="a"),
    "index": lambda: pd.Index([1, 2]),
    "array": lambda: pd.array([1, 2]),
    "Timestamp": lambda: pd.Timestamp("2024-01-01"),
    "one nanosecond": lambda: pd.Timestamp("2024-01-01 00:00:00.000000001"),
    "aware Timestamp": lambda: pd.Timestamp("2024-01-01", tz="UTC"),
    "Timedelta": lambda: pd.Timedelta(1),
    "Period": lambda: pd.Period("2024-01", "M"),
    "day Period": lambda: pd.Period("2024-01-01", "D"),
    "Interval": lambda: pd.Interval(0, 1),
    "open Interval": lambda: pd.Interval(0, 1, closed="left"),
    "NA": lambda: pd.NA,
    "NaT": lambda: pd.NaT,
    "nan": lambda: float("nan"),
    "None": lambda: None,
}


def test_pandas_values_are_told_apart() -> None:
    """Each difference between two frames, series, indexes or scalars of pandas changes the encoding."""
    assert distinct(*(make() for make in FRAMES.values()))


@pytest.mark.parametrize("name", FRAMES)
def test_pandas_values_are_the_same_when_made_again(name: str) -> None:
    """A pandas value that is made again, copied, or stored and loaded has the same encoding."""
    value = FRAMES[name]()
    assert encode(value) == encode(FRAMES[name]()) == encode(copy.deepcopy(value))
    assert encode(pickle.loads(pickle.dumps(value))) == encode(value)


def test_what_does_not_count_of_a_frame() -> None:
    """Blocks, ``attrs``, the kind of a range index, and the order of unordered categories do not count."""
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    built = frame[["a"]].copy()
    built["b"] = frame["b"]
    built.attrs["note"] = "x"
    assert encode(built) == encode(frame)
    assert encode(frame.set_axis(pd.Index([0, 1]), axis=0)) == encode(frame)
    assert encode(frame[::-1][::-1]) == encode(frame)
    left, right = pd.CategoricalDtype(["x", "y"]), pd.CategoricalDtype(["y", "x"])
    assert encode(pd.Series(["x"], dtype=left)) == encode(pd.Series(["x"], dtype=right))
    assert encode(pd.Timestamp("2024-01-01").as_unit("s")) == encode(pd.Timestamp("2024-01-01").as_unit("ns"))
    assert encode(pd.Timestamp("5000-01-01").as_unit("s")) != encode(pd.Timestamp("6000-01-01").as_unit("s"))


def test_columns_of_numbers_are_taken_as_arrays() -> None:
    """A column of numbers is encoded as its array."""
    assert encode(np.arange(3.0))[len("x13:numpy.ndarray") :] in encode(pd.Series(np.arange(3.0)))


def test_a_frame_with_a_strange_object_is_refused() -> None:
    """A frame with an object without an encoding in a cell is refused."""
    with pytest.raises(Unkeyable, match="no canonical encoding"):
        encode(pd.DataFrame({"a": [object()]}))


# --------------------------------------------------------------------------------------------- polars

POLARS = {
    "plain": lambda: pl.DataFrame({"a": [1, None], "b": ["x", "y"]}),
    "other value": lambda: pl.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    "other dtype": lambda: pl.DataFrame({"a": [1, None], "b": ["x", "y"]}, schema_overrides={"a": pl.Int32}),
    "other order": lambda: pl.DataFrame({"b": ["x", "y"], "a": [1, None]}),
    "other name": lambda: pl.DataFrame({"c": [1, None], "b": ["x", "y"]}),
    "floats": lambda: pl.DataFrame({"a": [float("nan"), -0.0]}),
    "empty": lambda: pl.DataFrame(),
    "no rows": lambda: pl.DataFrame(schema={"a": pl.Int64}),
    "lists": lambda: pl.DataFrame({"a": [[1], []]}),
    "structs": lambda: pl.DataFrame({"a": [{"x": 1, "y": 2}]}),
    "series": lambda: pl.Series("a", [1, None]),
    "other series": lambda: pl.Series("b", [1, None]),
    "nanoseconds": lambda: pl.Series("a", [1], pl.Datetime("ns")),
    "more nanoseconds": lambda: pl.Series("a", [2], pl.Datetime("ns")),
    "inner nanoseconds": lambda: pl.Series("a", [[1]], pl.List(pl.Datetime("ns"))),
    "more inner nanoseconds": lambda: pl.Series("a", [[2]], pl.List(pl.Datetime("ns"))),
    "enum": lambda: pl.Series("a", ["x"], pl.Enum(["x", "y"])),
    "other enum": lambda: pl.Series("a", ["x"], pl.Enum(["x"])),
    "categories": lambda: pl.Series("a", ["x", "y"], pl.Categorical),
}


def test_polars_values_are_told_apart() -> None:
    """Each difference between two frames or series of polars changes the encoding."""
    assert distinct(*(make() for make in POLARS.values()))


@pytest.mark.parametrize("name", POLARS)
def test_polars_values_are_the_same_when_made_again(name: str) -> None:
    """A polars value that is made again, in chunks, or stored and loaded has the same encoding."""
    value = POLARS[name]()
    assert encode(value) == encode(POLARS[name]())
    assert encode(pickle.loads(pickle.dumps(value))) == encode(value)
    if len(value):
        assert encode(pl.concat([value[:1], value[1:]], rechunk=False)) == encode(value)


def test_categories_of_polars_count_by_name() -> None:
    """A polars categorical is encoded by its strings, not by the numbers of this process."""
    code = (
        "import polars as pl; from flowdsl.core.encoding import encode\n"
        "earlier = pl.Series({!r}, dtype=pl.Categorical)\n"
        "print(encode(pl.Series(['x', 'y'], dtype=pl.Categorical)).hex())"
    )
    first, second = (run_python(code.format(earlier)) for earlier in (["x", "y"], ["q", "y", "x"]))
    assert first == second == encode(pl.Series(["x", "y"], dtype=pl.Categorical)).hex()


def test_a_query_is_refused() -> None:
    """A lazy frame is refused."""
    with pytest.raises(Unkeyable):
        encode(pl.LazyFrame({"a": [1]}))


# ------------------------------------------------------------------------------------------- laziness


def test_array_libraries_are_not_imported_for_encoding() -> None:
    """Encoding plain values and instances of classes imports none of the three libraries."""
    code = (
        "import sys\n"
        "from flowdsl.core.encoding import encode\nfrom flowdsl.core.unkeyable import Unkeyable\n"
        "encode({'a': [1, 2.0]})\n"
        "try: encode(object())\n"
        "except Unkeyable: pass\n"
        "print(sorted({'numpy', 'pandas', 'polars'} & set(sys.modules)))"
    )
    assert run_python(code) == "[]"


def test_encodings_of_arrays_are_golden() -> None:
    """Encodings of arrays and frames of numbers never change."""
    assert encode(np.array([[1, -2]], ">i4")) == (
        b"x13:numpy.ndarrayt3:s3:<i4t2:i1;i2;y8:\x01\x00\x00\x00\xfe\xff\xff\xff"
    )
    assert encode(np.float32(0.5)) == b"x12:numpy.scalart3:s3:<f4t0:y4:\x00\x00\x00\x3f"
    frame = pd.DataFrame({"a": [0.5], "b": [True]})
    assert hashlib.sha256(encode(frame)).hexdigest()[:16] == "7b632fc08a47cd50"
    table = pl.DataFrame({"a": [0.5, None]})
    assert hashlib.sha256(encode(table)).hexdigest()[:16] == "615f487aa0daa790"
