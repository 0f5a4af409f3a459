"""The limiter: as fast as the endpoint allows, with next to no refusals.

``Limiter`` (``dispatcher``) is the one dispatcher of a run; it has a ``lane`` for each model. Behind them stand
small pure objects, each told the time and the events, none of which waits:

- ``queue``: who waits, and the look-ahead
- ``limits`` of a lane: its ``dimension``s (requests, tokens) and the ``budget`` of a day or a window
- ``pace`` (GCRA and the exact log of a minute), ``charge`` (what a request takes)
- ``headers`` (what an answer shows of the limits), ``lawful`` (the law that holds a grant by them)
- ``gate`` (one refusal pauses everybody, one probe goes first), ``finder`` (the search for an unknown grant)
- ``concurrency`` (how many may be in flight), ``breaker`` (outages)
"""

from batchllm.limiter.dispatcher import Limiter
from batchllm.limiter.terms import Cost, Poll, View

__all__ = ["Cost", "Limiter", "Poll", "View"]
