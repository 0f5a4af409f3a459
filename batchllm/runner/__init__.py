"""The runner: one page (``run``) that shows the whole run, and the steps it is made of.

``plan`` turns rows into tickets, ``online`` brings them to their end, ``export`` writes the output.
"""

from batchllm.runner.forecast import Forecast
from batchllm.runner.result import Result, Summary
from batchllm.runner.run import run_job
from batchllm.runner.views import Status, clean_job, export_job, job_status, show_row

__all__ = [
    "Forecast",
    "Result",
    "Status",
    "Summary",
    "clean_job",
    "export_job",
    "job_status",
    "run_job",
    "show_row",
]
