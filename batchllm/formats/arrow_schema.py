"""One Arrow schema for several files, if it holds every value of each of them as it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def united_schema(
    columns: Sequence[str], names: Sequence[Sequence[str]], schemas: Sequence[Any]
) -> "pa.Schema | None":
    """Returns the schema of united columns.

    Integers get the larger type, and so do floats; what is a dictionary in one file only is not one. A column that a
    file lacks may be null. The metadata are those of the first file.

    Args:
        columns: The united columns.
        names: The names of each file's columns.
        schemas: The Arrow schema of each file, ``None`` for one of another format.

    Returns:
        The schema; ``None`` where a file has none, or where no type holds all values of a column.
    """
    if not schemas or any(schema is None for schema in schemas):
        return None
    import pyarrow as pa

    fields = []
    for name in columns:
        found = [
            schema.field(own.index(name)) for own, schema in zip(names, schemas, strict=True) if name in own
        ]
        kind = _common([field.type for field in found])
        if kind is None:
            return None
        nullable = len(found) < len(schemas) or any(field.nullable for field in found)
        written = {field.name for field in found}
        called = written.pop() if len(written) == 1 else name
        fields.append(pa.field(called, kind, nullable, found[0].metadata))
    return pa.schema(fields, schemas[0].metadata)


def _common(kinds: "Sequence[pa.DataType]") -> "pa.DataType | None":
    """The type that holds all values of some types; ``None`` where there is none."""
    import pyarrow as pa

    types = pa.types
    distinct = list(dict.fromkeys(kinds))
    if len(distinct) > 1:
        distinct = [kind for kind in distinct if not types.is_null(kind)]
    if len(distinct) > 1:
        plain = [kind.value_type if types.is_dictionary(kind) else kind for kind in distinct]
        distinct = list(dict.fromkeys(plain))
    if len(distinct) == 1:
        return distinct[0]
    for is_of, widest in (
        (types.is_signed_integer, lambda: max(distinct, key=lambda kind: kind.bit_width)),
        (types.is_unsigned_integer, lambda: max(distinct, key=lambda kind: kind.bit_width)),
        (types.is_floating, lambda: max(distinct, key=lambda kind: kind.bit_width)),
        (lambda kind: types.is_string(kind) or types.is_large_string(kind), pa.large_string),
    ):
        if all(map(is_of, distinct)):
            return widest()
    return None
