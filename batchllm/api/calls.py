"""The library: ``run`` takes a file, a DataFrame or a job, and returns a result.

>>> from batchllm import run
>>> run("reviews.csv", "classify", provider="simulator").frame()        # doctest: +SKIP
"""

import hashlib
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm.job import Job, assemble
from batchllm.journal import state_path
from batchllm.progress import Progress
from batchllm.runner import Result, run_job

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameResult(Result):
    """A finished run over a DataFrame.

    Attributes:
        joined: The given frame with the answer columns.
    """

    joined: "pd.DataFrame"

    def frame(self) -> "pd.DataFrame":
        """Returns the given frame, with the same index and types, and the answer columns."""
        return self.joined


def run(
    rows: "Job | str | Path | pd.DataFrame",
    task: str = "run",
    *,
    progress: Progress | None = None,
    wait: bool = False,
    **options: Any,
) -> Result:
    """Sends every row through a model and writes the file back with the answers.

    Args:
        rows: A CSV or JSONL file, a DataFrame, or a whole ``Job`` (then nothing else is given).
        task: ``summarize``, ``classify``, ``codegen``, or ``run`` with ``prompt=`` or ``template=``.
        progress: Shows progress; nothing is shown by default.
        wait: With ``via="batch"``: wait until every batch is ready, instead of raising ``NotReady``.
        options: Options by name (``job.options.OPTIONS``): ``provider="groq"``, ``labels="a,b"``, ``max_cost=5``.
            ``BATCHLLM_*`` variables count as they do for the command.

    Returns:
        The finished run, with ``frame()`` and ``summary``. The same call again goes on where a run stopped.
        Answers to a DataFrame are kept in the user's state folder, unless ``output=`` names a file.

    Raises:
        JobError: The job stopped; everything received is in its journal.
    """
    if isinstance(rows, Job):
        if options:
            raise TypeError("a Job has its options already; use dataclasses.replace to change one")
        return run_job(rows, progress=progress, wait=wait)
    if isinstance(rows, (str, Path)):
        job = assemble(task, {"input": str(rows), **options}, os.environ)
        return run_job(job, progress=progress, wait=wait)
    return _run_frame(rows, task, options, progress=progress, wait=wait)


def _run_frame(
    frame: "pd.DataFrame", task: str, options: dict[str, Any], *, progress: Progress | None, wait: bool
) -> Result:
    import pandas as pd

    text = (
        frame.to_json(orient="records", lines=True, force_ascii=False, date_format="iso")
        if len(frame)
        else ""
    )
    name = f"frame-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    path = state_path(f"{name}.jsonl")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    output = options.pop("output", None) or state_path(f"{name}.{task}.jsonl")
    job = assemble(task, {"input": str(path), "output": str(output), **options}, os.environ)
    result = run_job(job, progress=progress, wait=wait)
    answers = result.frame()
    ours = answers[[name for name in answers.columns if name not in frame.columns]]
    joined = pd.concat([frame, ours.set_axis(frame.index, axis=0)], axis=1)
    return FrameResult(**{field.name: getattr(result, field.name) for field in fields(result)}, joined=joined)
