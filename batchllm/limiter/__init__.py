"""The limiter: as fast as the endpoint allows, with few refusals, and never idle while the endpoint would accept.

``Limiter`` (``dispatcher``) is the one dispatcher of a run; it has a ``lane`` for each model. The other modules hold
small objects that are told the time and the events, and never wait:

- ``queue``: the waiting rows, with a bounded look-ahead
- ``limits`` of a lane: its ``dimension``s, requests and tokens. The pace of each is the lowest of the limit that the
  user gave, what headers show as left (``header_pacer``), and what refusals taught (``rate_estimate``)
- ``pace`` (due times, and the log of a minute), ``charge`` (what a request takes)
- ``gate`` (pauses and probes), ``refusals`` (what a refusal means), ``learning`` (what a lane learns from it)
- ``routing`` (which of several endpoints, each with a limiter of its own) and the ``shared_queue`` of these
- ``concurrency`` (how many may be in flight), ``breaker`` (outages)

The states of a lane. Only the gate excludes the others; the rest can hold together.

================== ======================================== =================================================
state              what holds                               what moves the lane out of it
================== ======================================== =================================================
nothing known      only concurrency limits the pace         a header shows a limit; a refusal closes the gate
limit known        the user gave it, or headers show it     the third single refusal in spite of a given
                                                            limit, or a refused probe: an estimate is added;
                                                            headers that do not move are no longer trusted
gate closed        everything waits, then one probe goes    the probe is accepted, or not refused in time; or
                                                            a request sent after the refused one is accepted
within its span    an estimate is held: a refusal           the span (twice the time that it took to
                   contradicts it                           measure) ends: searching
searching          the pace doubles every span              the next pause yields a new estimate
noise              refusals are expected: each delays its   six or more refused in a row, or more refused
                   row only, and estimates are restored     than chance explains
cap                at most so many requests are in flight   refusals although fewer are in flight; every
                                                            30 s without one, one more request is tried
================== ======================================== =================================================

Terms, each used in one sense only. *Accepted*: not refused, whatever the answer is. *Given*: the user told the limit;
*shown*: headers do; *known*: either. *Stretch*: the time from one pause to the next. *Between pauses*: an estimate
measured over a whole stretch, so without what a bucket had stored before the first. *Proven*: a rate held for a whole
span. *Doubted*: the last measurement was lower, and the proven rate was kept. *Weak*: it rests on less than ten
seconds. *Contradicted* by a refusal: an estimate between pauses and within its span. *Isolated refusal*: requests
around it were accepted. *Unexplained refusal*: one that the present pace should have prevented.
"""

from batchllm.limiter.dispatcher import Limiter
from batchllm.limiter.route import EndpointState, Target
from batchllm.limiter.routing import EndpointRouter
from batchllm.limiter.terms import Cost, Poll, View

__all__ = ["Cost", "EndpointRouter", "EndpointState", "Limiter", "Poll", "Target", "View"]
