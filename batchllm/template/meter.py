"""Bounds the work of one rendering: every operation of a template takes from a budget what it makes and what it walks.

A unit is a character of text, 1/32 of an element of a container, or 1/20 of a node of the syntax tree in each pass of a
loop. A value that an operation makes has at most ``MAX_SIZE`` units, counted as a tree, so that a short expression
cannot stand for a large value; a whole rendering has ``BUDGET``.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.visitor import NodeTransformer

MAX_SIZE = 10_000_000
BUDGET = 64_000_000
_ELEMENT, _NODE = 32, 20
_HIGHEST_PRECISION = 100
_REPEATED_WALKS = {"sort": 8, "dictsort": 8, "unique": 4, "map": 2}
SIZED, COUNTED = "_sized", "_counted"


class Meter:
    """The budget of the rendering that goes on."""

    def __init__(self) -> None:
        self.left = BUDGET
        self.call_cost = _NODE

    def begin(self) -> None:
        """Starts a rendering."""
        self.left = BUDGET

    def take(self, units: int) -> None:
        """Takes units from the budget.

        Raises:
            SecurityError: They are not there.
        """
        self.left -= units
        if self.left < 0:
            raise SecurityError("the template does too much work for one row")

    def made(self, value: Any) -> Any:
        """Takes what a value is, and returns it.

        Raises:
            SecurityError: It is too large.
        """
        self.room_for(size_of(value))
        return value

    def room_for(self, size: int) -> None:
        """Refuses a value before it is made.

        Raises:
            SecurityError: It would be too large.
        """
        if size > MAX_SIZE:
            raise SecurityError(f"a value would have more than {MAX_SIZE} characters")
        self.take(size)

    def counted(self, values: Iterable[Any], cost: int) -> Iterator[Any]:
        """Yields the values of a loop, and takes the cost of its body for each."""
        for value in values:
            self.take(cost)
            yield value

    def materialised(self, value: Any) -> Any:
        """Returns a list of what an iterator yields, each taken; everything else as it is."""
        return list(self.counted(value, _ELEMENT)) if isinstance(value, Iterator) else value

    def filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a filter that takes from the budget."""
        first = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def metered(*args: Any, **named: Any) -> Any:
            passed, value, rest = args[:first], self.materialised(args[first]), args[first + 1 :]
            self.take(size_of(value) * _REPEATED_WALKS.get(name, 1) + sum(map(size_of, rest)))
            self._before(name, value, rest, named)
            return self.made(function(*passed, value, *rest, **named))

        return metered

    def test(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a test that takes from the budget what it may walk."""

        @functools.wraps(function)
        def metered(*args: Any, **named: Any) -> Any:
            self.take(sum(map(size_of, args[1:] if hasattr(function, "jinja_pass_arg") else args)))
            return function(*args, **named)

        return metered

    def _before(self, name: str, value: Any, rest: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Refuses what a filter would make too large, or too slowly."""
        text = value if isinstance(value, str) else ""
        if name == "join":
            separator = named.get("d", rest[0] if rest else "")
            self.room_for(size_of(value) + len(str(separator)) * _length(value))
        elif name in ("tojson", "string"):
            self.room_for(size_of(value))
        elif name == "replace":
            self.replaced(str(value), *map(str, [*rest, *named.values()][:2]))
        elif name == "striptags":
            self.take(len(text) * (text.count("<") // 100))
        elif name == "round" and any(
            isinstance(item, int) and abs(item) > _HIGHEST_PRECISION for item in (*rest, *named.values())
        ):
            raise SecurityError(f"a precision above {_HIGHEST_PRECISION} is refused")
        elif name == "sum" and not isinstance(
            named.get("start", rest[1] if len(rest) > 1 else 0), int | float
        ):
            raise SecurityError("sum adds numbers only")

    def replaced(self, text: str, old: str = "", new: str = "") -> None:
        """Refuses a replacement that makes a text too large."""
        self.room_for(len(text) + text.count(old) * len(new))


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def size_of(value: Any) -> int:
    """Returns the units of a value as a tree; counting stops above ``MAX_SIZE``."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, int):
        return 1 + value.bit_length() // 8
    size, waiting = 0, [value]
    while waiting and size <= MAX_SIZE:
        item = waiting.pop()
        if isinstance(item, Mapping):
            size += _ELEMENT * len(item)
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            size += _ELEMENT * len(item)
            if size <= MAX_SIZE:
                waiting += item
        else:
            size += len(item) if isinstance(item, str | bytes) else 1
    return size


class Metered(NodeTransformer):
    """Puts the meter into a syntax tree: loops are counted, and what is made or compared is sized."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - the name is Jinja's
        """Counts the passes of a loop by the size of its body."""
        self.generic_visit(node)
        if not (isinstance(node.iter, nodes.Filter) and node.iter.name == COUNTED):
            node.iter = _filter(node.iter, COUNTED, nodes.Const(cost_of(node)))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """Joins by the filter, which knows how long the text will be."""
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Sizes both sides of a comparison, which may walk them."""
        self.generic_visit(node)
        node.expr = _filter(node.expr, SIZED)
        for operand in node.ops:
            operand.expr = _filter(operand.expr, SIZED)
        return node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        """Sizes a tuple that is read."""
        return self._sized(node) if node.ctx == "load" else self.generic_visit(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """Sizes a slice."""
        return self._sized(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        """Leaves what has the meter in it."""
        return node if node.name in (SIZED, COUNTED) else self.generic_visit(node)

    def _sized(self, node: nodes.Expr) -> nodes.Node:
        return _filter(self.generic_visit(node), SIZED)

    visit_List = visit_Dict = _sized  # noqa: N815


def cost_of(node: nodes.Node) -> int:
    """Returns the units of evaluating a node once, its texts included."""
    found = [node, *node.find_all(nodes.Node)]
    texts = sum(len(part.data) for part in found if isinstance(part, nodes.TemplateData))
    constants = sum(size_of(part.value) for part in found if isinstance(part, nodes.Const))
    return _NODE * len(found) + texts + constants


def _filter(node: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)
