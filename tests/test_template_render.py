import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import UsageError
from batchllm.records import Row
from batchllm.template import Renderer, RenderError, from_prompt, parse, text_column, text_like
from batchllm.template.render import _concatenation
from batchllm.template.sandbox import Sandbox, bounded
from batchllm.template.values import to_text

COLUMNS = ("id", "text", "Review Text", "größe", "n", "tags")
VALUES: dict[str, Any] = {
    "id": "007",
    "text": "T",
    "Review Text": "R",
    "größe": "XL",
    "n": 12,
    "tags": ["a", None],
}


class Spelled(float):
    """A number that remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> "Spelled":
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


def row(values: dict[str, Any] | None = None) -> Row:
    return Row(0, 2, VALUES if values is None else values, [])


def prompt(source: str, values: dict[str, Any] | None = None, **variables: Any) -> str:
    renderer = Renderer(from_prompt(source).with_variables(variables), COLUMNS, "text")
    content: str = renderer.messages(row(values))[1]["content"]
    return content


def test_every_column_can_be_reached() -> None:
    assert prompt('{{ id }}|{{ text }}|{{ row["Review Text"] }}|{{ größe }}|{{ row.n }}') == "007|T|R|XL|12"


def test_text_is_the_chosen_column_even_where_a_column_has_that_name() -> None:
    renderer = Renderer(from_prompt("{{ text }}"), COLUMNS, "Review Text")
    assert renderer.messages(row())[1]["content"] == "R"
    assert renderer.used_columns == {"Review Text"}
    assert renderer.reads_text


def test_a_variable_goes_before_a_column_of_its_name() -> None:
    assert prompt('{{ n }} {{ row["n"] }}', n=3) == "3 12"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (12, "12"),
        (2**70, str(2**70)),
        (Spelled("1e5"), "1e5"),
        ({"a": [1, "ü"]}, '{"a":[1,"ü"]}'),
        ([Spelled("1.50"), 2**70], f"[1.50,{2**70}]"),
        ([Spelled("1.50")], "[1.50]"),
    ],
)
def test_a_value_reads_as_json_writes_it(value: Any, text: str) -> None:
    assert prompt("{{ n }}", {**VALUES, "n": value}) == text
    assert prompt("{{ n | string if false else n }}", {**VALUES, "n": value}) == text


@pytest.mark.parametrize(
    "value",
    [
        "{{ 7*7 }}",
        "{% for a in b %}",
        "{# x #}",
        "${7*7}",
        "{{ ''.__class__ }}",
        "{{ row }}",
        "<b>&amp;</b>",
        "{{",
    ],
)
def test_the_value_of_a_cell_is_never_rendered(value: str) -> None:
    values = {**VALUES, "text": value}
    assert prompt("{{ text }}", values) == value
    assert prompt("{{ text | trim }}{{ text[:0] }}", values) == value


PIECE = st.one_of(
    st.sampled_from(
        [
            "{{ id }}",
            "{{ text }}",
            '{{ row["Review Text"] }}',
            "{{ row.n }}",
            "{{tags}}",
            "{{ bullets }}",
            "\n",
            "  ",
            "{{ bullets + 1 }}",
            "{% if bullets > 2 %}\nmany\n{% endif %}\n",
            "{# note #}",
            "{{- text -}}",
            "{{ 'a' }}",
            "{% raw %}{{ x }}{% endraw %}",
            '{{ "{{" }}',
            "{% for l in labels %}{{ l }}, {% endfor %}\n",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), max_size=8),
)
CELL = st.one_of(st.text(max_size=12), st.integers(), st.none(), st.booleans(), st.lists(st.text(max_size=3)))


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECE, max_size=8), st.fixed_dictionaries(dict.fromkeys(COLUMNS, CELL)))
def test_the_short_way_gives_what_jinja_gives(pieces: list[str], values: dict[str, Any]) -> None:
    variables = {"bullets": 3, "labels": ["a", "b"]}
    source = "".join(pieces)
    renderer = Renderer(from_prompt("{{ id }}" + source).with_variables(variables), COLUMNS, "text")
    _, fill = renderer._messages[1]
    assert fill is not None and fill.__qualname__.startswith(_concatenation.__name__)
    by_jinja = Sandbox().from_string("{{ id }}" + source)
    context = by_jinja.new_context({**values, **variables, "row": values})
    assert renderer.messages(row(values))[1]["content"] == bounded(by_jinja.root_render_func(context))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ reveiw_text }}", "did you mean Review Text?"),
        ('{{ row["Reviw Text"] }}', "did you mean Review Text?"),
        ("{{ row.nn }}", '{{ row["nn"] }} names no column'),
        ("{{ text", "line 1"),
        ("{{ text | nosuch }}", "nosuch"),
        ("{% include 'x' %}", "cannot include"),
        ("{% import 'x' as y %}", "cannot include"),
        ("{{ range(3) }}", "range"),
        ("{{ text.__class__ }}", "__class__"),
        ("{{ row.__init__ }}", "__init__"),
        ("{{ text | attr('__class__') }}", "attr"),
        ("{{ 'x' * 10**9 }}", "more than"),
        ("{{ 10 ** 10000000 }}", "too large"),
        ("{{ 'x'.ljust(10**9) }}", "ljust"),
        ("{{ '{:>999999999}'.format(1) }}", "format"),
        ("{{ '%999999999d' % 1 }}", "%"),
        ("{{ cycler('a') }}", "cycler"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "run"),
    ],
)
def test_what_cannot_work_is_an_error_before_the_first_request(source: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        prompt(source)


def test_an_unknown_name_lists_the_columns() -> None:
    with pytest.raises(UsageError, match="the columns are: id, text, Review Text, größe, n, tags"):
        prompt("{{ zzz }}")


def test_text_without_a_chosen_column_asks_for_one() -> None:
    with pytest.raises(UsageError, match=r"the columns are: a, b; say which it is with --column NAME"):
        Renderer(from_prompt("{{ text }}"), ("a", "b"))


@pytest.mark.parametrize(
    "source",
    [
        "{{ text['__class__'] }}",
        "{{ row['pop']('id') }}",
        "{% set a = text %}{{ (a * 9999999) }}",
        "{{ [text] * 99999999 }}",
        "{{ row[text] }}",
        "{{ 1 / (n - 12) }}",
    ],
)
def test_what_cannot_be_filled_fails_its_row_only(source: str) -> None:
    renderer = Renderer(from_prompt(source), None, "text")
    with pytest.raises(RenderError):
        renderer.messages(row({**VALUES, "text": "long enough"}))


def test_a_number_too_long_to_write_fails_its_row_only() -> None:
    with pytest.raises(RenderError, match="cannot be written"):
        prompt("{{ n }}", {**VALUES, "n": 10**5000})


def test_a_row_cannot_be_changed_by_a_template() -> None:
    values = {"text": "T", "list": [1]}
    renderer = Renderer(from_prompt("{{ row['list'].append(2) }}"), None, "text")
    with pytest.raises(RenderError):
        renderer.messages(row(values))
    assert values == {"text": "T", "list": [1]}


def test_a_row_without_a_column_fails_with_its_name() -> None:
    for source in ("{{ other }}", "{{ other | upper }}"):
        renderer = Renderer(from_prompt(source), None)
        with pytest.raises(RenderError, match="other"):
            renderer.messages(row())


def test_a_column_that_may_be_missing_has_a_default() -> None:
    source = '{{ other | default("-") }}{{ row["x"] | d("+") }}{{ "!" if y is not defined }}'
    assert prompt(source) == "-+!"


def test_more_than_ten_megabytes_are_not_sent() -> None:
    for source in ("{{ text }}{{ text }}", "{{ text | trim }}{{ text }}"):
        with pytest.raises(RenderError, match="longer than"):
            prompt(source, {**VALUES, "text": "x" * 6_000_000})


def test_used_columns_are_those_that_are_read() -> None:
    renderer = Renderer(from_prompt('{{ id }} {{ row["n"] if row.tags }}'), COLUMNS, "text")
    assert renderer.used_columns == {"id", "n", "tags"}
    assert not renderer.reads_text
    assert Renderer(from_prompt("{{ row | length }}"), COLUMNS).used_columns == set(COLUMNS)
    assert Renderer(from_prompt("{{ row.items() | list }}"), COLUMNS).used_columns == set(COLUMNS)


def test_messages_that_read_no_column_are_rendered_once() -> None:
    renderer = Renderer(from_prompt("{{ text }}"), COLUMNS, "text")
    assert renderer.messages(row())[0] is renderer.messages(row())[0]


EXAMPLES = """
[[messages]]
role = "user"
content = "one"
name = "ann"
[[messages]]
role = "assistant"
content = "1"
[[messages]]
role = "user"
content = [{type = "text", text = "{{ text }}"}, {type = "image_url", image_url = {url = "{{ id }}", detail = "low"}}]
[parameters]
temperature = "{{ n }}"
stop = "{{ id }}"
seed = 7
logit_bias = "{{ bias | default('') }}"
max_tokens = "{{ bullets * 50 }}"
metadata = {id = "{{ id }}"}
"""


def test_a_template_may_hold_examples_and_content_parts() -> None:
    renderer = Renderer(parse(EXAMPLES, "mine").with_variables({"bullets": 3}), COLUMNS, "text")
    first, second, third = renderer.messages(row())
    assert first == {"role": "user", "content": "one", "name": "ann"}
    assert second == {"role": "assistant", "content": "1"}
    assert third["content"] == [
        {"type": "text", "text": "T"},
        {"type": "image_url", "image_url": {"url": "007", "detail": "low"}},
    ]


def test_parameters_read_columns_and_keep_their_kind() -> None:
    renderer = Renderer(parse(EXAMPLES, "mine").with_variables({"bullets": 3}), COLUMNS, "text")
    assert renderer.parameters(row()) == {
        "seed": 7,
        "max_tokens": 150,
        "temperature": 12,
        "stop": "007",
        "metadata": {"id": "007"},
    }
    assert renderer.parameters(row({**VALUES, "n": " 0.5 "}))["temperature"] == 0.5
    assert "temperature" not in renderer.parameters(row({**VALUES, "n": None}))
    with pytest.raises(RenderError, match="temperature is 'hot'"):
        renderer.parameters(row({**VALUES, "n": "hot"}))


@pytest.mark.parametrize("word", ["NaN", "Infinity", "true", '"1"', "[1]"])
def test_a_number_is_nothing_else(word: str) -> None:
    renderer = Renderer(parse(EXAMPLES, "mine").with_variables({"bullets": 3}), COLUMNS, "text")
    with pytest.raises(RenderError, match="not a number"):
        renderer.parameters(row({**VALUES, "n": word}))


def test_to_text_leaves_text_alone() -> None:
    assert to_text("{{ x }}\r\n") == "{{ x }}\r\n"


def rows(*values: dict[str, Any]) -> list[Row]:
    return [row(value) for value in values]


def test_the_text_column_is_the_wanted_one() -> None:
    assert text_column(("a", "b"), [], "b") == "b"
    with pytest.raises(
        UsageError, match=r"no column 'titel' \(did you mean title\?\); its columns are: title, b"
    ):
        text_column(("title", "b"), [], "titel")


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [(("zzz",), "zzz"), (("id", "Text"), "Text"), (("body", "text"), "text"), (("编号", "评论"), "评论")],
)
def test_the_text_column_is_the_only_one_or_text_or_the_only_usual_name(
    columns: tuple[str, ...], chosen: str
) -> None:
    assert text_column(columns, [], None) == chosen


def test_the_text_column_is_the_only_one_that_reads_like_text() -> None:
    sample = rows(
        {"a": "X1", "b": "a few words of it", "c": "2020-01-01"}, {"a": "X2", "b": "", "c": "2020-01-02"}
    )
    assert text_column(("a", "b", "c"), sample, None) == "b"
    sample = rows({"a": "这是一段文字", "b": "7"})
    assert text_column(("a", "b"), sample, None) == "a"


def test_no_column_is_chosen_among_several_that_read_like_text() -> None:
    assert text_column(("a", "b"), rows({"a": "some words of text", "b": "more words of text"}), None) is None
    assert text_column(("a", "b"), rows({"a": "1", "b": "2"}), None) is None


@pytest.mark.parametrize(
    "values",
    [
        {"id": "1", "question": "What is the capital of France?", "answer": "Paris"},
        {"id": "1", "question": "What is up?", "answer": "Not much"},
        {"id": "1", "title": "A day by the sea", "body": "We went to the sea in May."},
    ],
)
def test_several_columns_that_may_be_the_text_are_listed_and_none_is_chosen(values: dict[str, str]) -> None:
    columns = tuple(values)
    assert text_column(columns, rows(values), None) is None
    candidates = text_like(columns, rows(values))
    assert candidates == list(columns[1:])
    with pytest.raises(
        UsageError, match=f"several columns read like text: {', '.join(columns[1:])}; say which"
    ):
        Renderer(from_prompt("{{ text }}"), columns, None, candidates)


def test_names_and_labels_beside_a_text_are_no_text() -> None:
    sample = rows({"name": "John Smith", "text_id": "7", "review": "I like it very much.", "label": "good"})
    assert text_column(("name", "text_id", "review", "label"), sample, None) == "review"
