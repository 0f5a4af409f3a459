"""The journal of a job: what was about to be sent, what came back, and the outcome of each row.

A job has one SQLite database, in WAL mode, written by one connection in one thread. The output file is made from it.
Four rules hold at every instant, whatever is killed when:

1. *Intent before send.* ``await intend(…)`` returns when the attempts are on the disk; only then is anything sent.
2. *Saved first.* ``save(…)`` reports when the raw answer is on the disk; only then does anything read it. Replies are
   stored by attempt, inserted once, and never changed or deleted.
3. *Right row.* A row belongs to a request by a hash of the request and an ordinal for equal ones, never by its number;
   each link of the chain row → request → attempt → reply has a checksum, so damage raises an error.
4. *Resume is the same command.* After a crash, an intent without a reply is counted once as possibly billed; a reply
   whose outcome is not recorded is read again by the runner.

``Journal`` writes, ``JournalReader`` reads (also during a run), and ``JobLock`` keeps a second run out.
"""

from batchllm.journal.batches import BatchRecord, BatchResult, BatchState, BatchStore, new_name
from batchllm.journal.database import ForeignDatabase, bring_back, set_aside
from batchllm.journal.files import check_folder, check_space, remove, state_path
from batchllm.journal.journal import Journal
from batchllm.journal.kept import AskedAgain, KeptAnswer, is_better
from batchllm.journal.lock import JobLock
from batchllm.journal.reader import JournalReader
from batchllm.journal.rebuild import JournalBuilder, Rebuilt
from batchllm.journal.records import (
    FINISHED,
    PLAN,
    SKIPPED,
    TRIAL,
    AdmittedRow,
    AttemptRecord,
    FinishedRows,
    Orphan,
    PlanRecord,
    RowCounts,
    RowRecord,
    State,
)
from batchllm.journal.recovery import store_value
from batchllm.journal.replies import StoredReply
from batchllm.journal.requests import LaterRequest, LaterState, RequestRecord, StoredAnswer
from batchllm.journal.tail import AttemptEntry, Entry, JournalTail, KeptEntry

__all__ = [
    "FINISHED",
    "PLAN",
    "SKIPPED",
    "TRIAL",
    "AdmittedRow",
    "AskedAgain",
    "AttemptEntry",
    "AttemptRecord",
    "BatchRecord",
    "BatchResult",
    "BatchState",
    "BatchStore",
    "Entry",
    "FinishedRows",
    "ForeignDatabase",
    "JobLock",
    "Journal",
    "JournalBuilder",
    "JournalReader",
    "JournalTail",
    "KeptAnswer",
    "KeptEntry",
    "LaterRequest",
    "LaterState",
    "Orphan",
    "PlanRecord",
    "Rebuilt",
    "RequestRecord",
    "RowCounts",
    "RowRecord",
    "State",
    "StoredAnswer",
    "StoredReply",
    "bring_back",
    "check_folder",
    "check_space",
    "is_better",
    "new_name",
    "remove",
    "set_aside",
    "state_path",
    "store_value",
]
