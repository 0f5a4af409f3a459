"""What a row needs: one request, several samples, a re-ask, a turn of a conversation.

A *flow* is a deterministic generator over one row. It yields what it needs, receives it, and returns the row's answer:

================  ====================================================================================
yields            receives
================  ====================================================================================
``Ask``           its ``Answer``
a list of them    the list of their answers, once all are there
``Kept``          a value that is computed once in the life of the job
``After``         the ``History`` of the row's conversation, once the turn before it has an answer
================  ====================================================================================

A request that fails is raised at the ``yield`` as ``RequestFailed``; a flow that lets it pass fails with it. A row
that cannot be sent raises ``Unsent``.

Whoever drives a flow decides where answers come from: the endpoint, the Batch API, the journal of an earlier run, or
stand-ins for an estimate. So a flow is run again and again over what there is (it is *replayed*), and has to ask the
same whenever it receives the same: no clock, no random number, no order of a set. What a new version of a library may
compute differently is a ``Kept`` value. A flow knows no journal, no limiter and no mode.
"""

from batchllm.flows.asking import together
from batchllm.flows.flow import (
    After,
    Ask,
    Flow,
    History,
    Kept,
    RequestFailed,
    Step,
    Unsent,
    later_key,
    sendable,
    step_of,
)
from batchllm.flows.job_flow import JobFlow, job_flow

__all__ = [
    "After",
    "Ask",
    "Flow",
    "History",
    "JobFlow",
    "Kept",
    "RequestFailed",
    "Step",
    "Unsent",
    "job_flow",
    "later_key",
    "sendable",
    "step_of",
    "together",
]
