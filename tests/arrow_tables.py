"""Random tables of Arrow: most types, nested too, with nulls, metadata and any names."""

import datetime as dt
import string
import uuid
from decimal import Decimal
from functools import cache
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "+05:30"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def _within(kind: pa.DataType, low: int, high: int) -> st.SearchStrategy[Any]:
    return st.tuples(st.just(kind), st.just(st.integers(low, high)))


def _integers() -> list[st.SearchStrategy[Any]]:
    signed = [
        _within(getattr(pa, f"int{bits}")(), -(1 << bits - 1), (1 << bits - 1) - 1)
        for bits in (8, 16, 32, 64)
    ]
    return [*signed, *(_within(getattr(pa, f"uint{bits}")(), 0, (1 << bits) - 1) for bits in (8, 16, 32, 64))]


def _moments() -> st.SearchStrategy[Any]:
    """Units of a time, also far beyond the years of Python."""
    return st.one_of(st.integers(-(10**12), 10**12), st.integers(-(1 << 61), 1 << 61))


def _of(*kinds: pa.DataType, values: st.SearchStrategy[Any]) -> list[st.SearchStrategy[Any]]:
    return [st.tuples(st.just(kind), st.just(values)) for kind in kinds]


@cache
def scalars(*, exact: bool = False) -> st.SearchStrategy[Any]:
    """Types of scalars, each with a strategy for its values.

    Args:
        exact: Only those whose values Python holds.
    """
    found = [
        *_integers(),
        *_of(pa.string(), pa.large_string(), values=TEXTS),
        *_of(pa.bool_(), values=st.booleans()),
        *_of(pa.float64(), values=st.floats()),
        *_of(pa.float32(), values=st.floats(width=32)),
        *_of(pa.float16(), values=st.floats(width=16)),
        *_of(pa.binary(), pa.large_binary(), values=st.binary(max_size=6)),
        *_of(pa.binary(3), values=st.binary(min_size=3, max_size=3)),
        *_of(pa.decimal128(12, 3), values=st.decimals(-(10**8), 10**8, places=3)),
        *_of(pa.decimal256(50, 20), values=st.decimals(-(10**20), 10**20, places=10)),
        *_of(pa.date32(), values=st.dates()),
        *_of(
            pa.time32("ms"),
            values=st.times().map(lambda it: it.replace(microsecond=it.microsecond // 1000 * 1000)),
        ),
        *_of(pa.time64("us"), values=st.times()),
        *_of(pa.null(), values=st.none()),
        *_of(pa.dictionary(pa.int8(), pa.string()), values=st.sampled_from(["a", "é", ""])),
    ]
    if exact:
        return st.one_of(found)
    found += [
        *_of(pa.duration("ms"), pa.duration("us"), values=st.integers(-(1 << 50), 1 << 50)),
        *_of(pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns"), values=_moments()),
        *_of(*(pa.timestamp("us", zone) for zone in ZONES), values=_moments()),
        *_of(pa.time64("ns"), values=st.integers(0, 86_399_999_999_999)),
        *_of(pa.uuid(), values=st.uuids().map(lambda it: it.bytes)),
    ]
    return st.one_of(found)


@cache
def columns(depth: int = 2, *, exact: bool = False) -> st.SearchStrategy[Any]:
    """Types, nested ones too, each with a strategy for its values."""
    if not depth:
        return scalars(exact=exact)
    inner = columns(depth - 1, exact=exact).filter(lambda it: _can_be_inside(it[0]))
    lists = inner.map(lambda it: (pa.list_(it[0]), _lists(it[1])))
    large = inner.map(lambda it: (pa.large_list(it[0]), _lists(it[1])))
    fixed = inner.map(lambda it: (pa.list_(it[0], 2), st.lists(_or_null(it[1]), min_size=2, max_size=2)))
    structs = st.lists(inner, min_size=1, max_size=3).map(_struct)
    maps = inner.map(
        lambda it: (pa.map_(pa.string(), it[0]), st.lists(st.tuples(TEXTS, _or_null(it[1])), max_size=3))
    )
    return st.one_of(scalars(exact=exact), lists, large, fixed, structs, maps)


def _can_be_inside(kind: pa.DataType) -> bool:
    """Whether pyarrow makes nested columns of a type out of values of Python."""
    return not (
        pa.types.is_dictionary(kind) or pa.types.is_null(kind) or isinstance(kind, pa.BaseExtensionType)
    )


def _or_null(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def _lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(_or_null(values), max_size=3)


def _struct(inner: list[Any]) -> tuple[pa.DataType, st.SearchStrategy[Any]]:
    fields = [(string.ascii_lowercase[number], kind) for number, (kind, _) in enumerate(inner)]
    values = st.fixed_dictionaries(
        {name: _or_null(inner[number][1]) for number, (name, _) in enumerate(fields)}
    )
    return pa.struct(fields), values


@st.composite
def tables(draw: st.DrawFn, *, exact: bool = False, depth: int = 2) -> pa.Table:
    """Tables with at least one column; names may be empty, equal or strange."""
    kinds = draw(st.lists(columns(depth, exact=exact), min_size=1, max_size=4))
    rows = draw(st.integers(0, 7))
    names = draw(
        st.lists(TEXTS, min_size=len(kinds), max_size=len(kinds), unique=True)
        | st.just([string.ascii_letters[number] for number in range(len(kinds))])
    )
    arrays, fields = [], []
    for name, (kind, values) in zip(names, kinds, strict=True):
        nullable = draw(st.booleans()) or kind == pa.null()
        cells = draw(st.lists(_or_null(values) if nullable else values, min_size=rows, max_size=rows))
        arrays.append(array(cells, kind))
        fields.append(pa.field(name, arrays[-1].type, nullable, draw(st.none() | st.just({"unit": "m"}))))
    metadata = draw(st.none() | st.dictionaries(TEXTS.filter(bool), TEXTS, min_size=1, max_size=2))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata))


def array(cells: list[Any], kind: pa.DataType) -> pa.Array:
    """A column of cells; of an extension type they are those of its storage."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(cells, kind.storage_type))
    if pa.types.is_dictionary(kind):
        return pa.array(cells, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(cells, kind)


def shown(column: pa.ChunkedArray) -> str:
    """Every value of a column as Arrow shows it, NaN and times beyond Python's included."""
    whole = column.combine_chunks()
    if pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_decode()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    return str(whole.to_string(window=100, container_window=100))


def plain(value: Any) -> Any:
    """What a row has for a value of Python: written apart from the product, as the documentation has it."""
    if isinstance(value, float):
        return None if value != value else str(value) if value in (float("inf"), -float("inf")) else value
    if isinstance(value, bytes):
        import base64

        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return base64.standard_b64encode(value).decode("ascii")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Decimal):
        return Decimal(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        keys = [plain(key) for key, _ in value]
        pairs = [(key, plain(item)) for key, (_, item) in zip(keys, value, strict=True)]
        return dict(pairs) if len(set(keys)) == len(keys) else [list(pair) for pair in pairs]
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
