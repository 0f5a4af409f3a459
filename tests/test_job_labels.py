"""Labels from a file, with what each means."""

from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import UsageError
from batchllm.job import assemble

TOML = """
[[labels]]
label = "billing"
description = "Invoices, prices."
examples = ["charged twice", "where is my invoice"]

[[labels]]
label = "Home, Garden"
"""
CSV = 'label,description,examples\nbilling,"Invoices, prices.",charged twice|where is my invoice\n"Home, Garden",,\n'
JSONL = (
    '{"label": "billing", "description": "Invoices, prices.", "examples": ["charged twice", "where is my invoice"]}\n'
    '{"label": "Home, Garden"}\n'
)
MEANINGS = {
    "billing": 'Invoices, prices. For example: "charged twice"; "where is my invoice"',
    "Home, Garden": "",
}


def labels_of(value: Any, tmp_path: Path) -> Any:
    flags = {"input": str(tmp_path / "rows.csv"), "provider": "simulator", "labels": value}
    job = assemble("classify", flags, {})
    assert job.template is not None
    return job.template.variables["labels"], job.template.answer.labels


@pytest.mark.parametrize(("name", "text"), [("l.toml", TOML), ("l.csv", CSV), ("l.jsonl", JSONL)])
def test_a_file_gives_labels_with_description_and_examples(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert labels_of(str(tmp_path / name), tmp_path) == (MEANINGS, ("billing", "Home, Garden"))


@pytest.mark.parametrize(
    "text",
    [
        'labels = ["a", "b"]',
        '[labels]\na = ""\nb = ""\n',
        "[a]\n[b]\n",
        '[[labels]]\nlabel = "a"\n[[labels]]\nlabel = "b"\n',
    ],
)
def test_labels_without_a_meaning_are_a_list_in_every_form_of_toml(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.toml").write_text(text)
    assert labels_of(str(tmp_path / "l.toml"), tmp_path) == (["a", "b"], ("a", "b"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("l.toml", "[[labels]]\nlabel = 3\n", "label 1: there is no label"),
        ("l.toml", "labels", "this is not TOML"),
        ("l.toml", "labels = 3", "l.toml"),
        (
            "l.toml",
            '[a]\ndescripton = "x"\n[b]\n',
            "label a: there is no key descripton .*did you mean description",
        ),
        ("l.toml", "[a]\nexamples = [1]\n[b]\n", "label a: the examples are"),
        ("l.csv", "name\na\nb\n", "row 1: there is no label"),
        ("l.csv", "label\na\na\n", "row 2: the label 'a' is there twice"),
        ("l.csv", "label\na\n", "at least two labels"),
        ("l.csv", "label\na\nA\n", "in another case"),
        ("none.csv", None, "none.csv: cannot be opened"),
        ("none.toml", None, "No such file"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=said) as raised:
        labels_of(str(tmp_path / name), tmp_path)
    assert "--labels" in str(raised.value)


def test_a_table_may_have_descriptions_and_examples_too(tmp_path: Path) -> None:
    table = {
        "billing": {"description": "Invoices, prices.", "examples": ["charged twice"]},
        "other": "the rest",
    }
    labels, _ = labels_of(table, tmp_path)
    assert labels == {"billing": 'Invoices, prices. For example: "charged twice"', "other": "the rest"}


def test_the_file_of_a_job_file_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(CSV)
    (tmp_path / "job.toml").write_text(
        '[job]\ntask = "classify"\ninput = "rows.csv"\nprovider = "simulator"\nlabels = "l.csv"\n'
    )
    job = assemble("run", {"job_file": str(tmp_path / "job.toml")}, {})
    assert job.variables["labels"] == MEANINGS
