"""The journal of a job: what was meant to be sent, what came back, and what each row got.

One SQLite database a job, in WAL mode, written by one connection in one thread. It is the truth of a job; the
output file is a view of it. Four rules hold at every instant, whatever is killed when:

1. *Intent before send.* ``await intend(…)`` returns when the attempts are on the disk; only then may bytes leave.
2. *Saved first.* ``await save(…)`` returns when the raw answer is on the disk; only then may anything read it.
   Replies are stored by attempt, inserted once, and never changed or deleted.
3. *Right row.* A row means a request through a hash of the request and an ordinal for equal ones, never through
   its number; the chain row → request → attempt → reply carries a check at every link, so damage is loud.
4. *Resume is the same command.* What lies between an intent and its reply at a crash is counted once as perhaps
   paid; what lies between a reply and its settlement is handed to the runner to settle.

``Journal`` writes, ``JournalReader`` reads (also while a run goes on), ``JobLock`` keeps a second run out.
"""

from batchllm.journal.batches import BatchRecord, BatchResult, BatchState, BatchStore, new_name
from batchllm.journal.database import set_aside
from batchllm.journal.files import check_folder, check_space, remove, state_path
from batchllm.journal.journal import Journal
from batchllm.journal.lock import JobLock
from batchllm.journal.reader import JournalReader
from batchllm.journal.records import (
    SKIPPED,
    AdmittedRow,
    AttemptRecord,
    FinishedRows,
    Orphan,
    PlanRecord,
    RowCounts,
    RowRecord,
    State,
    StoredAnswer,
    UnreadReply,
)
from batchllm.journal.recovery import store_value

__all__ = [
    "SKIPPED",
    "AdmittedRow",
    "AttemptRecord",
    "BatchRecord",
    "BatchResult",
    "BatchState",
    "BatchStore",
    "FinishedRows",
    "JobLock",
    "Journal",
    "JournalReader",
    "Orphan",
    "PlanRecord",
    "RowCounts",
    "RowRecord",
    "State",
    "StoredAnswer",
    "UnreadReply",
    "check_folder",
    "check_space",
    "new_name",
    "remove",
    "set_aside",
    "state_path",
    "store_value",
]
