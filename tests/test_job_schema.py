"""Where the schema of a job comes from: text, a file, a pydantic model; and what is sent of it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import UsageError
from batchllm.job import assemble
from batchllm.request.spec import response_format
from tests.command import Command
from tests.request_jobs import body_of, make_job, make_row

MODULE = """
from typing import Literal, Optional
from pydantic import BaseModel, Field

class Ticket(BaseModel):
    label: Literal["billing", "shipping"]
    score: int = Field(ge=1, le=5)
    note: Optional[str] = None

class Plain:
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "ticket_models.py").write_text(MODULE)
    (tmp_path / "ticket_broken.py").write_text("raise SystemExit(3)")
    (tmp_path / "rows.csv").write_text("text\nthe box was broken\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("ticket_models", "ticket_broken"):
        sys.modules.pop(name, None)


def schema_in(text: Any) -> Any:
    flags = {"input": "rows.csv", "prompt": "{{ text }}", "provider": "simulator", "schema": text}
    return assemble("run", flags, {}).schema


def test_a_pydantic_model_in_the_working_folder_is_a_schema(folder: Path) -> None:
    before = list(sys.path)
    schema = schema_in("ticket_models:Ticket")
    assert schema["properties"]["label"]["enum"] == ["billing", "shipping"]
    assert schema["properties"]["score"]["maximum"] == 5
    assert schema["required"] == ["label", "score"]
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ticket_models:Nothing", "the module ticket_models has no Nothing"),
        ("ticket_models:Plain", "Plain is neither a pydantic model nor a JSON Schema"),
        ("ticket_broken:Ticket", "importing ticket_broken failed: SystemExit: 3"),
        ("no_such_module:Ticket", "no module no_such_module here; .* is written 'no_such_module: Ticket'"),
    ],
)
def test_what_is_no_model_is_refused(folder: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        schema_in(text)


def test_a_job_file_cannot_run_code(folder: Path) -> None:
    (folder / "job.toml").write_text(
        '[job]\ninput = "rows.csv"\nprompt = "{{ text }}"\nprovider = "simulator"\nschema = "ticket_models:Ticket"\n'
    )
    with pytest.raises(UsageError, match="would run code; give it as --schema"):
        assemble("run", {"job_file": "job.toml"}, {})
    assert "ticket_models" not in sys.modules


def test_strict_mode_asks_for_optional_fields_too_and_takes_answers_without_them() -> None:
    asked = body_of(make_job(schema=schema_of_text("label [a|b], note?")), make_row(text="x"))
    sent = asked["response_format"]["json_schema"]
    assert (sent["strict"], sent["schema"]["required"]) == (True, ["label", "note"])


def test_a_property_called_properties_stays_what_it_is() -> None:
    note = {"type": ["string", "null"]}
    inner = {
        "type": "object",
        "properties": {"properties": note, "required": note},
        "additionalProperties": False,
    }
    sent = response_format(inner)["json_schema"]
    assert sent["schema"]["properties"] == {"properties": note, "required": note}
    assert sent["schema"]["required"] == ["properties", "required"]


def test_an_open_schema_is_sent_as_it_is() -> None:
    schema = {"type": "object", "properties": {"note": {"type": ["string", "null"]}}}
    assert response_format(schema)["json_schema"] == {"name": "answer", "schema": schema, "strict": False}


def schema_of_text(text: str) -> Any:
    from batchllm.answer import schema_of

    return schema_of(text)


def test_the_fields_are_shown_before_the_first_request_and_in_the_dry_run(
    batchllm: Command, folder: Path
) -> None:
    words = ("run", "-p", "{{ text }}", "rows.csv", "--provider", "simulator", "--schema")
    text = "label [a|b|c], score 1..5, tags list, note?"
    line = "Fields: label [a|b|c], score 1..5, tags list, note? str"
    assert line in batchllm(*words, text, "--dry-run").out
    said = batchllm(*words, text, "-o", "out.jsonl")
    assert line in said.err and said.err.index(line) < said.err.index("row answered")
    row = json.loads((folder / "out.jsonl").read_text())
    assert row["label"] in ("a", "b", "c") and 1 <= row["score"] <= 5 and isinstance(row["tags"], list)
    refused = batchllm(*words, "label: one of a, b, c", "-o", "never.csv")
    assert (refused.status, (folder / "never.csv").exists()) == (2, False)
    assert "write 'label [a|b|c]'" in refused.err
