"""The limiter: as fast as the endpoint allows, with next to no refusals.

``Limiter`` is the one dispatcher. Behind it stand small pure objects, each told the time and the events:
the pace (``pace``), the gate after a refusal (``gate``), what a request takes (``charge``), how many may be in
flight (``concurrency``).
"""

from batchllm.limiter.dispatcher import Limiter
from batchllm.limiter.terms import Cost, Poll, View

__all__ = ["Cost", "Limiter", "Poll", "View"]
