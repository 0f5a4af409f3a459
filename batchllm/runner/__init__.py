"""The runner: one page (``run``) that shows the whole run, and the steps it is made of.

``plan`` turns rows into items, ``online`` brings them to their end, ``export`` writes the output. What looks at a job
from outside is in ``views``.
"""

from batchllm.budget.estimate import Forecast
from batchllm.runner.run import run_job
from batchllm.runner.summary import Result, Summary

__all__ = ["Forecast", "Result", "Summary", "run_job"]
