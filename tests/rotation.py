"""Sets of test points of which the quick suite takes one a day, and the proofs all the others."""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

POINT = int(os.environ.get("BATCHLLM_TEST_POINT", datetime.now(UTC).toordinal()))
"""Which point of each set the quick suite takes; pytest prints it, and the variable repeats a run."""


def rotating(points: Iterable[Any]) -> list[Any]:
    """Returns the points as parameters, all but one of them marked ``proof``."""
    listed = list(points)
    return [
        point if number == POINT % len(listed) else pytest.param(point, marks=pytest.mark.proof)
        for number, point in enumerate(listed)
    ]
