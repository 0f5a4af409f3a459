"""The library door: paths and DataFrames in, results and DataFrames out."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import batchllm
from batchllm import Job, Result, run


def test_a_path_gives_a_result_with_a_frame(samples: Path) -> None:
    result = run(samples / "reviews.csv", "classify", provider="simulator")
    assert isinstance(result, Result)
    assert result.exit_status == 0
    assert (result.summary.rows, result.summary.answered, result.summary.skipped) == (12, 11, 1)
    frame = result.frame()
    assert list(frame["id"])[:2] == ["r-001", "r-002"]
    assert frame["label"].iloc[0] == "positive"


def test_a_frame_comes_back_with_its_index_and_types_and_the_answers(clean_environment: Path) -> None:
    frame = pd.DataFrame(
        {
            "review": ["I love it", "awful, a waste", ""],
            "stars": [5, 1, 3],
            "when": pd.to_datetime(["2026-01-01"] * 3),
        },
        index=["a", "b", "c"],
    )
    answered = run(frame, "classify", column="review", provider="simulator").frame()
    assert list(answered.index) == ["a", "b", "c"]
    assert answered["stars"].dtype == frame["stars"].dtype
    assert answered["when"].equals(frame["when"])
    assert list(answered["label"])[:2] == ["positive", "negative"]
    assert answered["label"].isna().iloc[2]


def test_the_same_frame_again_pays_nothing(clean_environment: Path) -> None:
    frame = pd.DataFrame({"text": ["one", "two"]})
    first = run(frame, "run", prompt="Say {{ text }}", provider="simulator")
    second = run(frame, "run", prompt="Say {{ text }}", provider="simulator")
    assert (first.summary.attempts, second.summary.attempts) == (2, 0)
    assert first.frame().equals(second.frame())


def test_jsonl_gives_a_frame_of_what_json_says(samples: Path) -> None:
    frame = run(samples / "articles.jsonl", "summarize", provider="simulator").frame()
    assert frame["slug"].iloc[4] == "港口"
    assert frame["prompt_tokens"].dtype.kind == "i"


def test_a_job_has_its_options_already(samples: Path) -> None:
    from batchllm.job import assemble

    job = assemble("classify", {"input": str(samples / "reviews.csv"), "provider": "simulator"}, {})
    assert isinstance(job, Job)
    assert run(job).summary.answered == 11
    with pytest.raises(TypeError, match="replace"):
        run(job, model="other")


def test_public_names_are_those_of_all() -> None:
    for name in batchllm.__all__:
        assert getattr(batchllm, name) is not None
    with pytest.raises(AttributeError):
        _ = batchllm.nothing


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "('openai', 'pandas', 'tiktoken', 'aiohttp', 'jinja2')"
    code = f"import sys, batchllm.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
