"""What a template reads, found in its syntax tree before anything is filled."""

from collections.abc import Iterator

from jinja2 import nodes

ROW = "row"
WHOLE_ROW = frozenset({"items", "keys", "values", "get"})  # methods of a row, where no subscript is meant


def row_key(node: nodes.Node) -> str | None:
    """The column of ``row["…"]`` or ``row.…``; ``None`` for every other node."""
    if not isinstance(node, nodes.Getitem | nodes.Getattr):
        return None
    if not (isinstance(node.node, nodes.Name) and node.node.name == ROW):
        return None
    if isinstance(node, nodes.Getattr):
        return None if node.attr in WHOLE_ROW else node.attr
    if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        return node.arg.value
    return None


def row_keys(tree: nodes.Template) -> Iterator[str | None]:
    """Every column that is read through ``row``; ``None`` for a reading that may reach any."""
    named = 0
    for node in tree.find_all((nodes.Getitem, nodes.Getattr)):
        key = row_key(node)
        if key is not None:
            named += 1
            yield key
    if sum(1 for name in tree.find_all(nodes.Name) if name.name == ROW) > named:
        yield None


def with_default(tree: nodes.Template) -> frozenset[str]:
    """Names that may be missing: they stand before ``default`` or ``is defined``."""
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
    """The first attribute of Python's own that the template names, such as ``__class__``."""
    return next((node.attr for node in tree.find_all(nodes.Getattr) if node.attr.startswith("_")), None)
