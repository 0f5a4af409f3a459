"""The limiter over real sockets: a whole job against a limited and faulty endpoint holds the grant."""

from pathlib import Path
from typing import Any

import pytest

from batchllm import run
from batchllm.simulator import SimulatorSettings, start_in_thread

pytestmark = pytest.mark.proof

FAULTS = {"429": 0.0125, "500": 0.0125, "reset": 0.0125, "cut": 0.0125}


def write_rows(path: Path, rows: int) -> Path:
    lines = [
        "text",
        *(f"row {number} is a fine thing to say about a kettle that boils" for number in range(rows)),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("rows", "requests_per_minute", "known"),
    [
        (400, 1200, False),
        (300, 1200, True),
        pytest.param(3000, 600, False, marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_the_grant_is_held_and_next_to_nothing_is_refused(
    tmp_path: Path, rows: int, requests_per_minute: int, known: bool
) -> None:
    tokens_per_minute = 100 * requests_per_minute
    settings = SimulatorSettings(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        error_rate=FAULTS,
        latency_s=0.2,
        seed=3,
        headers=not known,
    )
    told: dict[str, Any] = {"rpm": requests_per_minute, "tpm": tokens_per_minute} if known else {}
    with start_in_thread(settings) as server:
        result = run(
            write_rows(tmp_path / "in.csv", rows), "classify", base_url=server.base_url, model="m", **told
        )
        ledger = server.ledger
    assert result.summary.answered == rows
    assert ledger.refused <= 0.001 * ledger.requests
    # Where only the user's word is known, nothing may be caught up with: each injected 429 costs its pause.
    floor = 0.9 if known else 0.97
    assert ledger.requests >= floor * requests_per_minute / 60 * (result.summary.seconds - 1.5)


def test_a_job_that_fits_into_what_remains_is_not_stretched(tmp_path: Path) -> None:
    with start_in_thread(SimulatorSettings(requests_per_minute=600, tokens_per_minute=60_000)) as server:
        result = run(write_rows(tmp_path / "in.csv", 200), "classify", base_url=server.base_url, model="m")
    assert result.summary.answered == 200
    assert result.summary.rate_limited == 0
    assert result.summary.seconds < 10
