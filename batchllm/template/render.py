"""Compiles a template for the columns of an input and fills it with rows.

Parts that read no column are rendered once. A message of text and plain placeholders becomes a concatenation,
which is much faster than Jinja and gives the same text.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jinja2 import nodes
from jinja2.environment import Template as Compiled
from jinja2.exceptions import TemplateSyntaxError
from jinja2.meta import find_referenced_templates, find_undeclared_variables

from batchllm.errors import UsageError, did_you_mean, listed
from batchllm.records import Row
from batchllm.template.meter import Metered, cost_of
from batchllm.template.model import Template
from batchllm.template.sandbox import (
    MAX_OUTPUT,
    ROW,
    Sandbox,
    bounded,
    private_attribute,
    row_key,
    row_keys,
    with_default,
)
from batchllm.template.values import RenderError, parameter_value, to_text

Values = Mapping[str, Any]
Filler = Callable[[Values], str]

_TEXT = "text"


class Renderer:
    """Fills a template with rows.

    Args:
        template: What to fill.
        columns: The columns of the input; ``None`` where they differ from row to row.
        column: The column that ``{{ text }}`` means; ``None`` where that is not clear.
        candidates: The columns that it may mean, for the message.
        hidden: Columns that no prompt may show.

    Attributes:
        used_columns: The columns that messages and parameters read.
        reads_text: Whether ``{{ text }}`` is read.
        has_fixed_parameters: Whether the parameters are the same for every row.

    Raises:
        UsageError: A placeholder names no column or variable, or the template is not Jinja.
    """

    def __init__(
        self,
        template: Template,
        columns: Iterable[str] | None = None,
        column: str | None = None,
        candidates: Sequence[str] = (),
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self._template = template
        self._columns = None if columns is None else tuple(columns)
        self._known = frozenset(self._columns or ())
        self._column = column
        self._candidates = candidates
        self._hidden = hidden
        self._variables = template.variables
        self._sandbox = Sandbox()
        self._used: set[str] = set()
        self.reads_text = False
        self._messages: list[tuple[dict[str, Any], Callable[[Values], Any] | None]] = []
        for number, message in enumerate(template.messages, 1):
            content: Any = list(message.content) if isinstance(message.content, tuple) else message.content
            filled = self._compile(content, f"message {number}")
            record: dict[str, Any] = {"role": message.role, "content": None if callable(filled) else filled}
            if message.name is not None:
                record["name"] = message.name
            self._messages.append((record, filled if callable(filled) else None))
        self._fixed: dict[str, Any] = {}
        self._filled: list[tuple[str, Callable[[Values], Any]]] = []
        for name, value in template.parameters.items():
            self._parameter(name, value)
        self.used_columns = frozenset(self._used)
        self.has_fixed_parameters = not self._filled

    def messages(self, row: Row) -> list[dict[str, Any]]:
        """Returns the messages of a row. Do not change them: those that read no column are shared by all rows.

        Raises:
            RenderError: The row lacks a column, or the text would be too long.
        """
        try:
            values = row.values
            return [
                record if fill is None else {**record, "content": fill(values)}
                for record, fill in self._messages
            ]
        except KeyError as error:
            raise RenderError(f"the row has no {error.args[0]!r}, which the template reads") from error

    def parameters(self, row: Row) -> dict[str, Any]:
        """Returns the request parameters of a row; where none reads a column, the same object for all rows.

        Raises:
            RenderError: The row lacks a column, or a parameter needs a number and has none.
        """
        if not self._filled:
            return self._fixed
        merged = dict(self._fixed)
        for name, fill in self._filled:
            try:
                value = fill(row.values)
            except KeyError as error:
                raise RenderError(f"the row has no {error.args[0]!r}, which the template reads") from error
            value = parameter_value(name, value) if isinstance(value, str) else value
            if value is not None:
                merged[name] = value
        return merged

    def _parameter(self, name: str, value: Any) -> None:
        filled = self._compile(value, f"parameter {name}")
        if callable(filled):
            self._filled.append((name, filled))
            return
        if isinstance(value, str) and filled != value:  # it read variables only
            filled = parameter_value(name, filled)
        if filled is not None:
            self._fixed[name] = filled

    def _compile(self, value: Any, where: str) -> Any:
        """Returns the value where it reads no column, else a function of a row's values."""
        if isinstance(value, str):
            return self._compile_text(value, where)
        if isinstance(value, Mapping):
            parts = {key: self._compile(item, where) for key, item in value.items()}
            if not any(map(callable, parts.values())):
                return parts
            return lambda row: {key: item(row) if callable(item) else item for key, item in parts.items()}
        if isinstance(value, list | tuple):
            items = [self._compile(item, where) for item in value]
            if not any(map(callable, items)):
                return items
            return lambda row: [item(row) if callable(item) else item for item in items]
        return value

    def _compile_text(self, source: str, where: str) -> str | Filler:
        place = f"template {self._template.name}, {where}"
        try:
            tree = self._sandbox.parse(source)
            if any(True for _ in find_referenced_templates(tree)):
                raise UsageError(f"{place}: a template cannot include, import or extend another")
            names = frozenset(find_undeclared_variables(tree))
            self._check(tree, names, place)
            pieces = self._pieces(tree)
            if pieces is not None:
                return _concatenation(pieces)
            return self._by_jinja(tree, names)
        except TemplateSyntaxError as error:
            raise UsageError(f"{place}, line {error.lineno}: {error.message}") from error
        except RecursionError as error:
            raise UsageError(f"{place}: the template is nested too deeply") from error
        except RenderError as error:
            raise UsageError(f"{place}: {error}") from error

    def _check(self, tree: nodes.Template, names: frozenset[str], place: str) -> None:
        """Notes what the template reads; refuses names that do not exist."""
        private = private_attribute(tree)
        if private is not None:
            raise UsageError(f"{place}: a template cannot read {private}, which is not data")
        optional = with_default(tree)
        for name in names - {ROW}:
            if name in self._variables:
                continue
            if name == _TEXT:
                self.reads_text = True
                if self._column is None and self._columns is not None and _TEXT not in self._known:
                    raise UsageError(self._unclear(place, self._columns))
            self._use(self._column_of(name), place, optional)
        if ROW not in names:
            return
        for key in row_keys(tree):
            if key is None:
                self._used.update(self._columns or ())
            else:
                self._use(key, place, optional, f'row["{key}"]')

    def _unclear(self, place: str, columns: Sequence[str]) -> str:
        """Says that ``{{ text }}`` may be several columns, or none."""
        several = f"several columns read like text: {listed(self._candidates)}"
        none = f"no column is called text or reads like text; the columns are: {listed(columns)}"
        found = several if self._candidates else none
        return f"{place} reads {{{{ text }}}}, and {found}; say which it is with --column NAME"

    def _use(self, column: str, place: str, optional: frozenset[str], written: str | None = None) -> None:
        if column in self._hidden:
            raise UsageError(
                f"{place}: {{{{ {written or column} }}}} is the column of the known answers (--gold), which no prompt "
                "may show; take it out of the prompt, or leave out --gold"
            )
        if self._columns is not None and column not in self._known:
            if column in optional:
                return
            choices = [*self._columns, *self._variables]
            raise UsageError(
                f"{place}: {{{{ {written or column} }}}} names no column{did_you_mean(column, choices)}; "
                f"the columns are: {listed(self._columns)}; a name that is not one word is written "
                '{{ row["its name"] }}'
            )
        self._used.add(column)

    def _pieces(self, tree: nodes.Template) -> list[str | tuple[str]] | None:
        """Returns texts and columns (as 1-tuples) in order, or ``None`` where the template needs Jinja."""
        pieces: list[str | tuple[str]] = []
        for node in tree.body:
            children = node.nodes if isinstance(node, nodes.Output) else [node]
            for child in children:
                if isinstance(child, nodes.TemplateData):
                    pieces.append(child.data)
                    continue
                key = self._plain_column(child)
                if key is not None:
                    pieces.append((key,))
                    continue
                if not self._is_constant(child):
                    return None
                pieces.append(_render(self._compiled(_template_of(child)), self._variables))
        return pieces

    def _plain_column(self, node: nodes.Node) -> str | None:
        if isinstance(node, nodes.Name) and node.name not in self._variables and node.name != ROW:
            return self._column_of(node.name)
        return row_key(node)

    def _column_of(self, name: str) -> str:
        return self._column if name == _TEXT and self._column is not None else name

    def _is_constant(self, node: nodes.Node) -> bool:
        """Returns whether the node reads variables only and sets nothing that later nodes read."""
        if not isinstance(node, nodes.Expr | nodes.If | nodes.For):
            return False
        whole = _template_of(node)
        if any(True for _ in whole.find_all((nodes.Assign, nodes.AssignBlock, nodes.Macro))):
            return False
        whole.set_environment(self._sandbox)
        return find_undeclared_variables(whole) <= self._variables.keys()

    def _compiled(self, tree: nodes.Template) -> Compiled:
        meter = self._sandbox.meter
        meter.begin()
        tree = Metered().visit(tree)
        meter.call_cost = max(meter.call_cost, cost_of(tree))
        tree.set_environment(self._sandbox)
        return Compiled.from_code(self._sandbox, self._sandbox.compile(tree), {})

    def _by_jinja(self, tree: nodes.Template, names: frozenset[str]) -> str | Filler:
        compiled = self._compiled(tree)
        fixed = {name: self._variables[name] for name in names if name in self._variables}
        columns = [(name, self._column_of(name)) for name in names - fixed.keys() - {ROW}]
        if not columns and ROW not in names:
            return _render(compiled, fixed)

        def fill(values: Values) -> str:
            found = {name: values[column] for name, column in columns if column in values}
            return _render(compiled, {**fixed, **found, ROW: values})

        return fill


def _template_of(node: nodes.Node) -> nodes.Template:
    return nodes.Template([nodes.Output([node]) if isinstance(node, nodes.Expr) else node], lineno=1)


def _render(compiled: Compiled, context: Mapping[str, Any]) -> str:
    compiled.environment.meter.begin()  # type: ignore[attr-defined]  # it is the sandbox
    return bounded(compiled.root_render_func(compiled.new_context(dict(context))))


def _concatenation(pieces: list[str | tuple[str]]) -> str | Filler:
    """Joins the pieces: a text where none is a column, else a function of a row's values."""
    columns = [(number, piece[0]) for number, piece in enumerate(pieces) if isinstance(piece, tuple)]
    if not columns:
        return "".join(piece for piece in pieces if isinstance(piece, str))
    frame = [piece if isinstance(piece, str) else "" for piece in pieces]

    def fill(values: Values) -> str:
        filled = frame.copy()
        for number, column in columns:
            value = values[column]
            filled[number] = value if type(value) is str else _written(value)
        text = "".join(filled)
        if len(text) > MAX_OUTPUT:
            raise RenderError(f"the message would be longer than {MAX_OUTPUT} characters")
        return text

    return fill


def _written(value: Any) -> str:
    try:
        return to_text(value)
    except ValueError as error:  # an integer of more digits than Python writes
        raise RenderError(f"a value of the row cannot be written: {error}") from error
