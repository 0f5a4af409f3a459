"""The limiter: as fast as the endpoint allows, with few refusals, and never idle while the endpoint would accept.

``Limiter`` (``dispatcher``) is the one dispatcher of a run; it has a ``lane`` for each model. Behind them stand small
pure objects, each given the time and the events, none of which waits:

- ``queue``: who waits, and the look-ahead
- ``limits`` of a lane: its ``dimension``s, requests and tokens. The pace of each is the least of what is given, what
  the answers' ``headers`` show as left (``stock``), and what refusals taught (``found``)
- ``pace`` (due times, and the exact log of a minute), ``charge`` (what a request takes)
- ``gate`` (a refusal pauses everybody, one probe goes first), ``refusals`` (what a refusal means)
- ``concurrency`` (how many may be in flight), ``breaker`` (outages)
"""

from batchllm.limiter.dispatcher import Limiter
from batchllm.limiter.terms import Cost, Poll, View

__all__ = ["Cost", "Limiter", "Poll", "View"]
