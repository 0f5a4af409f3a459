"""The runner: one page (``run``) that shows the whole run, and the steps it is made of.

``plan`` turns rows into tickets, ``online`` brings them to their end, ``export`` writes the output. What looks at a job
from outside is in ``views``.
"""

from batchllm.runner.forecast import Forecast
from batchllm.runner.result import Result, Summary
from batchllm.runner.run import run_job

__all__ = ["Forecast", "Result", "Summary", "run_job"]
