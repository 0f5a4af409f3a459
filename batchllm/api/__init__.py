"""The library: ``run`` takes a file, a table or a job; ``arun`` and ``astream`` are its async forms.

>>> from batchllm import run
>>> run("reviews.csv", "classify", provider="simulator").frame()        # doctest: +SKIP

``calls`` has the functions, ``job_call`` makes a job of what they are given, ``running`` runs it in a thread of its
own, ``tables`` reads rows in memory, and ``messages`` puts errors into Python's words.
"""

from batchllm.api.calls import arun, astream, run
from batchllm.api.comparing import compare
from batchllm.api.results import TableResult

__all__ = ["TableResult", "arun", "astream", "compare", "run"]
