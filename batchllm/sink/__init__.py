"""The output: every input cell as it was, the answer beside it, put in place in one rename."""

from batchllm.sink.atomic import remove_leftovers, storage_error
from batchllm.sink.columns import ADDABLE, STANDARD, Columns, plan_columns
from batchllm.sink.outcome import Outcome
from batchllm.sink.output import Written, write_output

__all__ = [
    "ADDABLE",
    "STANDARD",
    "Columns",
    "Outcome",
    "Written",
    "plan_columns",
    "remove_leftovers",
    "storage_error",
    "write_output",
]
