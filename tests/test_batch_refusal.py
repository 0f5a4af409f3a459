"""What a failed validation means: wait, cut shorter, blame lines, or stop."""

from batchllm.batch.errors import read_rejection


def error(code: str, message: str = "m", line: int | None = None) -> dict[str, object]:
    return {"code": code, "message": message, "line": line, "param": None}


def test_a_full_queue_is_told_with_its_limit() -> None:
    words = "Enqueued token limit reached for gpt-4o-mini in organization org-1. Limit: 2,000,000 enqueued tokens."
    found = read_rejection([error("token_limit_exceeded", words)], 500, answered=False)
    assert (found.queue_full, found.limit_tokens, found.systemic) == (True, 2_000_000, False)
    assert read_rejection([error("", "too many enqueued tokens")], 5, answered=True).queue_full


def test_lines_are_to_blame_for_their_own_errors() -> None:
    found = read_rejection(
        [error("invalid_json_line", line=3), error("duplicate_custom_id", line=9)], 10, answered=False
    )
    assert set(found.lines or {}) == {2, 8}
    assert not found.systemic


def test_an_error_on_every_line_is_a_wrong_setting_until_something_was_answered() -> None:
    errors = [error("model_not_found", line=number) for number in (1, 2, 3)]
    assert read_rejection(errors, 3, answered=False).systemic
    assert set(read_rejection(errors, 3, answered=True).lines or {}) == {0, 1, 2}


def test_a_hundred_errors_of_one_kind_are_nobodys_own() -> None:
    errors = [error("model_not_found", line=number + 1) for number in range(100)]
    assert read_rejection(errors, 50_000, answered=True).systemic


def test_an_error_of_the_file_stops_the_job_with_the_endpoints_words() -> None:
    found = read_rejection([error("model_not_supported", "gpt-9 has no batches")], 10, answered=True)
    assert found.systemic
    assert found.message == "model_not_supported: gpt-9 has no batches"
    assert read_rejection([], 10, answered=True).message == "no reason given"


def test_a_file_with_too_many_lines_is_cut_shorter_unless_it_has_one() -> None:
    assert read_rejection([error("too_many_tasks", "at most 15")], 40, answered=False).too_long
    assert read_rejection([error("too_many_tasks", "at most 0")], 1, answered=False).systemic


def test_lines_that_are_not_there_are_nobodys() -> None:
    for line in (0, -1, 11, True, "3"):
        assert read_rejection([{"code": "x", "message": "m", "line": line}], 10, answered=True).systemic
