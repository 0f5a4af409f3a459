from pathlib import Path

import pytest

from batchllm import tokens
from batchllm.errors import UsageError
from batchllm.records import Row
from batchllm.template import Renderer, builtin_names, from_prompt, load, parse

MESSAGE = '[[messages]]\nrole = "user"\ncontent = "{{ text }}"\n'


def filled(name: str, text: str = "The text.", **variables: object) -> list[str]:
    renderer = Renderer(load(name).with_variables(variables), ("text",), "text")
    return [message["content"] for message in renderer.messages(Row(0, 2, {"text": text}, []))]


ROOM = '{{ ([labels | join("; ")] if multi_label else labels) | room }}'


def test_the_three_tasks_have_the_defaults_of_the_reference_api_document() -> None:
    assert builtin_names() == ["classify", "codegen", "summarize"]
    found = {name: (load(name).answer.column, dict(load(name).parameters)) for name in builtin_names()}
    assert found == {
        "summarize": ("summary", {"temperature": 0.3, "max_tokens": "{{ (bullets | int) * 50 }}"}),
        "classify": ("label", {"temperature": 0.0, "max_tokens": ROOM}),
        "codegen": ("code", {"temperature": 0.2, "max_tokens": 500}),
    }
    assert load("classify").answer.labels == ("positive", "negative", "neutral")
    assert load("codegen").answer.read == "code"


def test_summarize_answers_in_the_language_of_the_text_unless_told_another() -> None:
    system, user = filled("summarize")
    assert "language of the text" in system
    assert user == "Summarize this text in 3 bullet points:\n\nThe text."
    system, user = filled("summarize", answer_language="French", bullets=1)
    assert "Answer in French." in system and "language of the text" not in system
    assert user.startswith("Summarize this text in 1 bullet point:")


def test_classify_names_its_labels_and_speaks_of_sentiment_only_for_sentiment() -> None:
    system, _ = filled("classify")
    assert "sentiment" in system and "positive, negative, neutral" in system
    system, _ = filled("classify", labels=["bug", "feature"])
    assert "sentiment" not in system and ": bug, feature." in system


def test_labels_given_to_a_job_are_the_labels_that_are_read() -> None:
    assert load("classify").with_variables({"labels": ["bug", "feature"]}).answer.labels == ("bug", "feature")


def test_codegen_speaks_to_an_expert_of_the_language() -> None:
    assert filled("codegen", language="Rust")[0].startswith("You are a Rust expert.")


def test_the_source_of_a_template_gives_the_same_template_again() -> None:
    for name in builtin_names():
        assert parse(load(name).source, name) == load(name)


@pytest.mark.parametrize("prompt", ['Say "{{ text }}"\n\tback\\slash', "译成英文：{{ text }} \x7f\x01 🙂"])
def test_a_prompt_of_one_line_is_a_template_like_any_other(prompt: str) -> None:
    template = from_prompt(prompt)
    assert template.messages[-1].content == prompt
    assert dict(template.parameters) == {}
    assert (template.name, template.answer.column) == ("run", "response")


def test_a_system_prompt_replaces_the_one_of_the_template_or_comes_first() -> None:
    replaced = load("codegen").with_system("Be brief.")
    assert [(m.role, m.content) for m in replaced.messages] == [
        ("system", "Be brief."),
        ("user", "{{ text }}"),
    ]
    inserted = parse(MESSAGE, "mine").with_system("Be brief.")
    assert [m.role for m in inserted.messages] == ["system", "user"]


def test_a_template_file_is_named_after_its_stem(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("\ufeff" + MESSAGE, "utf-8")
    assert load(path).name == "mine"
    assert load(path).answer.column == "response"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at least one message"),
        ("x = ", "not TOML"),
        ("[[mesages]]\n" + MESSAGE, "unknown key mesages (did you mean messages?)"),
        (MESSAGE + "[parameters]\ntemperatur = 1", "unknown key temperatur (did you mean temperature?)"),
        (MESSAGE + "[parameters]\nfoo = 1", "[parameters.extra_body]"),
        (MESSAGE + "[answer]\ncolum = 'x'", "unknown key colum (did you mean column?)"),
        (MESSAGE + "[answer]\nread = 'lable'", "did you mean label?"),
        (MESSAGE + "[answer]\nread = 'label'", "at least two labels"),
        (MESSAGE + "[answer]\nlabels = [1]", "list of words"),
        (MESSAGE + "[answer]\nschema = 1", "JSON Schema"),
        (MESSAGE + "[answer]\ncolumn = ''", "column must be text"),
        ("[[messages]]\nrole = 'usr'\ncontent = 'x'", "did you mean user?"),
        ("[[messages]]\nrole = 'user'\ncontent = 1", "content must be text"),
        ("[[messages]]\nrole = 'user'\ncontents = 'x'", "did you mean content?"),
        ("messages = [1]", "a table with role and content"),
        ("variables = 1\n" + MESSAGE, "must be a table"),
    ],
)
def test_what_is_wrong_in_a_template_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text, "mine")
    assert said in str(raised.value)
    assert "template mine" in str(raised.value)


def test_a_template_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean summarize\?.*classify, codegen, summarize"):
        load("sumarize")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(tmp_path / "x.toml")
    with pytest.raises(UsageError, match="no regular file"):
        load(tmp_path)


def test_the_job_table_is_left_to_the_job() -> None:
    assert parse("[job]\nanything = 1\n" + MESSAGE, "mine").name == "mine"


@pytest.mark.parametrize(("bullets", "limit"), [(3, 150), (1, 50), ("7", 350)])
def test_a_summary_has_fifty_tokens_for_each_bullet_point(bullets: object, limit: int) -> None:
    renderer = Renderer(load("summarize").with_variables({"bullets": bullets}), ("text",), "text")
    assert renderer.has_fixed_parameters
    assert renderer.parameters(Row(0, 2, {"text": "a"}, [])) == {"temperature": 0.3, "max_tokens": limit}


@pytest.mark.parametrize(
    "label", ["a", "delivery was late, and support did not answer", "非常糟糕的客户服务体验和物流", "🙂" * 9]
)
def test_a_label_has_room_in_its_answer_however_long_it_is(label: str) -> None:
    renderer = Renderer(load("classify").with_variables({"labels": ["b", label]}), ("text",), "text")
    limit = renderer.parameters(Row(0, 2, {"text": "a"}, []))["max_tokens"]
    assert limit >= max(10, tokens.counter("gpt-4")(label), tokens.counter("gpt-4o")(label))
