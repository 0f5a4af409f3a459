"""One limit for many processes: rate limits and budgets are leased to workers for a short time.

A *holder* (``LeaseHolder``) divides the limits; each *worker* is one run of a job, which renews its lease every second.
Both are told the time and never wait or send: what carries a ``LeaseRequest`` to the holder and its ``Lease`` back is
the caller's (an actor call, a socket). All of it can be pickled.

A holder lives in one process, next to whatever carries the messages::

    holder = LeaseHolder(now, budget=BudgetLimits(cost=Decimal(5)), saved=read_saved(), restarted=True)
    ...
    lease = holder.renew(request, now)          # for each request, in any order
    if holder.changed:                          # only where there is a budget
        write_durably(holder.saved())           # before the lease is handed out
    return lease

A worker passes ``Leases(renew)`` to ``run_job``, where ``renew`` is an async function that takes a request to the
holder and returns the lease. Everything else is the run's: it asks, obeys, and gives back at its end.

What holds, whatever dies, is delayed or is cut off, and wherever the clocks stand, as long as they go within
``MARGIN`` of each other and no two holders answer at the same time:

- The sum of the rates that workers may go at never exceeds the limit, once a lowered limit is one time to live old.
- A worker whose lease has ended sends nothing; what is in flight lands.
- What a dead worker held is in use again within two times to live.
- What all workers spend, and may have spent, never exceeds a budget.
"""

from batchllm.leases.client import Leases
from batchllm.leases.holder import LeaseHolder
from batchllm.leases.messages import BudgetShare, BudgetUse, Lease, LeaseRequest, Share, Use

__all__ = ["BudgetShare", "BudgetUse", "Lease", "LeaseHolder", "LeaseRequest", "Leases", "Share", "Use"]
