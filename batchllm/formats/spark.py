"""The schema that Spark keeps in the metadata of a Parquet file.

Spark reads the columns that are named there, and no others; so those that are added have to be in it.
Format: the JSON of ``org.apache.spark.sql.types.StructType``, which ``ParquetWriteSupport`` of Spark writes.
"""

import json
from collections.abc import Collection, Sequence
from types import GenericAlias
from typing import Any

from batchllm.formats.kinds import Kind

SPARK = b"org.apache.spark.sql.parquet.row.metadata"
"""The key of the metadata."""

_NAMES: dict[Any, str] = {int: "long", float: "double", bool: "boolean"}


def spark_schema(known: bytes, kept: Collection[str], added: Sequence[str], kinds: Sequence[Kind]) -> bytes:
    """Returns the schema of an output.

    Args:
        known: The schema of the input; one that is not understood is returned as it is.
        kept: The columns of the input that the output has.
        added: The names of its other columns.
        kinds: What these hold.
    """
    try:
        schema = json.loads(known)
        own = [field for field in schema["fields"] if field["name"] in kept]
    except (ValueError, TypeError, KeyError):
        return known
    more = [
        {"name": name, "type": _type(kind), "nullable": True, "metadata": {}}
        for name, kind in zip(added, kinds, strict=True)
    ]
    return json.dumps({**schema, "fields": [*own, *more]}, separators=(",", ":")).encode()


def _type(kind: Kind) -> Any:
    if isinstance(kind, GenericAlias):
        return {"type": "array", "elementType": _type(kind.__args__[0]), "containsNull": True}
    return _NAMES.get(kind, "string")
