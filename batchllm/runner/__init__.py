"""One run of a job: ``run`` shows it on one page, from the job to its output file.

``resume`` opens the journal, ``output`` writes the output, ``summary`` has the numbers, ``result`` what the library
returns, and ``display`` the progress.
"""

from batchllm.budget.forecast import Forecast
from batchllm.runner.feed import FinishedRow, RowFeed
from batchllm.runner.result import Result
from batchllm.runner.run import Confirm, run_job
from batchllm.runner.summary import Summary

__all__ = ["Confirm", "FinishedRow", "Forecast", "Result", "RowFeed", "Summary", "run_job"]
