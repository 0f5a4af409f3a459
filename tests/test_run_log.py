import json
import logging
import shutil
from pathlib import Path

import pytest

from batchllm.run_log import MOST_TEXT, RunLog


def test_without_a_file_nothing_is_written() -> None:
    RunLog(None).write("start")


def test_an_event_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    RunLog(file).write("failed", row=1, message='two\nlines "quoted" \u2028 \ud800 ü')
    (line,) = file.read_text("ascii").splitlines()
    event = json.loads(line)
    assert (event["event"], event["message"]) == ("failed", 'two\nlines "quoted" \u2028 \ud800 ü')
    assert event["time"].endswith("Z")


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    RunLog(file).write("failed", message="x" * 10_000)
    assert len(json.loads(file.read_text())["message"]) == MOST_TEXT


def test_a_log_may_be_rotated_at_any_time(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    log = RunLog(file)
    log.write("one")
    file.rename(tmp_path / "run.log.1")
    log.write("two")
    assert [json.loads(text.read_text())["event"] for text in (tmp_path / "run.log.1", file)] == [
        "one",
        "two",
    ]


def test_a_disk_that_fails_costs_the_event_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = RunLog(folder / "run.log")
    shutil.rmtree(folder)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.write("failed")
        assert len(caplog.messages) == 1
        assert "the run goes on" in caplog.messages[0]
        log.close()
    assert caplog.messages[1].endswith("3 events could not be written")
