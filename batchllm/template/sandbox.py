"""The Jinja environment of templates (sandboxed, strict, without a loader, bounded output) and its syntax trees.

The author of a template is usually the user, but templates are passed around, so one must not reach files,
attributes of Python objects, gigabytes, or hours. The sandbox of Jinja covers attributes. Operators, methods and
filters that turn a small number into a large text are refused or limited here, the output ends at ``MAX_OUTPUT``
characters, and ``meter`` bounds the work and the size of everything else.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batchllm.template.meter import COUNTED, SIZED, Meter, size_of
from batchllm.template.values import RenderError, to_json, to_text

MAX_OUTPUT = 10_000_000
ROW = "row"
_ROW_METHODS = frozenset({"items", "keys", "values", "get"})
_MAX_BITS = 100_000
_LEAST_ROOM = 10
_MACRO = 10
"""A call of a macro costs as much as evaluating its nodes this many times."""
_FILTERS = [
    "abs", "capitalize", "count", "d", "default", "dictsort", "escape", "first", "float", "int", "items",
    "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace",
    "reverse", "round", "select", "selectattr", "sort", "string", "striptags", "sum", "title", "trim",
    "truncate", "unique", "upper", "wordcount",
]  # fmt: skip
_GROWING_METHODS = frozenset(
    {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "translate"}
)
_RENDER_ERRORS = (
    TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, MemoryError,
)  # fmt: skip


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with bounded output."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self.meter = meter = Meter()
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            finalize=self._written,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=0,
        )
        filters = {name: self.filters[name] for name in _FILTERS} | {"tojson": to_json, "room": room}
        self.filters = {name: meter.filter(name, function) for name, function in filters.items()}
        self.filters |= {SIZED: meter.made, COUNTED: meter.counted}
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: meter.test(function) for name, function in tests.items()}
        self.globals = {}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Applies an operator unless it would make something large out of something small."""
        if operator == "%" and isinstance(left, str | bytes):
            raise SecurityError("% does not format text here; use ~ to join")
        meter = self.meter
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(other, int):
                    meter.room_for(size_of(one) * (abs(other) if hasattr(one, "__len__") else 1))
            are_integers = isinstance(left, int) and isinstance(right, int)
            if are_integers and left.bit_length() + right.bit_length() > _MAX_BITS:
                raise SecurityError("* would make too large a number")
        if operator == "+" and hasattr(left, "__len__"):
            meter.room_for(size_of(left) + size_of(right))
        if operator == "**" and not _small_power(left, right):
            raise SecurityError("** would make too large a number")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **named: Any) -> Any:
        """Calls a method or a macro, and takes from the budget what that may make."""
        meter = self.meter
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        cost = meter.call_cost if owner is not None else meter.call_cost * _MACRO
        meter.take(cost + sum(map(size_of, (*args, *named.values()))))
        if isinstance(owner, str):
            meter.take(len(owner))
            if name == "replace":
                meter.replaced(owner, *map(str, args[:2]))
            elif name == "join" and args:
                args = (meter.materialised(args[0]), *args[1:])
                meter.room_for(size_of(args[0]) + len(owner) * len(args[0]))
        return meter.made(super().call(context, obj, *args, **named))

    def _written(self, value: Any) -> str:
        self.meter.room_for(size_of(value))
        return to_text(value)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Returns whether a template may read ``obj.attr``."""
        if attr in _GROWING_METHODS and isinstance(obj, str | bytes):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Refuses ``str.format``, because a width in it makes any length."""


def room(texts: Iterable[Any]) -> int:
    """The filter ``room``: tokens that any of the texts fits into as an answer, at least 10.

    No known vocabulary has a token shorter than a byte of UTF-8; two more are for a full stop and the end.
    """
    return max(_LEAST_ROOM, *(len(str(text).encode("utf-8", "replace")) + 2 for text in texts))


def _small_power(base: Any, exponent: Any) -> bool:
    if not isinstance(base, int) or not isinstance(exponent, int):
        return isinstance(base, int | float) and isinstance(exponent, int | float)
    return base.bit_length() * abs(exponent) <= _MAX_BITS


def bounded(chunks: Iterable[str]) -> str:
    """Joins the chunks.

    Raises:
        RenderError: They are more than ``MAX_OUTPUT`` characters, or one of them cannot be rendered.
    """
    size = 0
    kept: list[str] = []
    try:
        for chunk in chunks:
            size += len(chunk)
            if size > MAX_OUTPUT:
                raise RenderError(f"the message would be longer than {MAX_OUTPUT} characters")
            kept.append(chunk)
    except RenderError:
        raise
    except _RENDER_ERRORS as error:
        raise RenderError(f"the template cannot be filled: {error}") from error
    return "".join(kept)


def row_key(node: nodes.Node) -> str | None:
    """Returns the column of ``row["…"]`` or ``row.…``; ``None`` for every other node."""
    if not isinstance(node, nodes.Getitem | nodes.Getattr):
        return None
    if not (isinstance(node.node, nodes.Name) and node.node.name == ROW):
        return None
    if isinstance(node, nodes.Getattr):
        return None if node.attr in _ROW_METHODS else node.attr
    if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None


def row_keys(tree: nodes.Template) -> Iterator[str | None]:
    """Yields every column that is read through ``row``; ``None`` for a use that may reach any column."""
    named = 0
    for node in tree.find_all((nodes.Getitem, nodes.Getattr)):
        key = row_key(node)
        if key is not None:
            named += 1
            yield key
    if sum(1 for name in tree.find_all(nodes.Name) if name.name == ROW) > named:
        yield None


def with_default(tree: nodes.Template) -> frozenset[str]:
    """Returns the names that may be missing, because ``default`` or ``is defined`` follows them."""
    found: set[str] = set()
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        if node.name not in ("default", "d", "defined", "undefined"):
            continue
        if isinstance(node.node, nodes.Name):
            found.add(node.node.name)
        elif node.node is not None:
            found.add(row_key(node.node) or "")
    return frozenset(found)


def private_attribute(tree: nodes.Template) -> str | None:
    """Returns the first attribute of Python's own that the template names, such as ``__class__``."""
    return next((node.attr for node in tree.find_all(nodes.Getattr) if node.attr.startswith("_")), None)
