"""The judge of a world: does a row leave when one could, and how much longer than that does the limiter wait?

It reads the endpoint's own state, never the limiter's. Between two events a limit only opens, so each state is
judged once, when the next event closes it.
"""

from dataclasses import dataclass
from math import inf

from .clients import Client
from .endpoint import Endpoint, Row
from .ideal import rate_per_s
from .spec import DAY_S

MOST_JUDGED_IN_FLIGHT = 8


@dataclass(slots=True)
class Standstill:
    """A time in which nothing left although something could."""

    since: float = 0.0
    until: float = 0.0
    bound_s: float = 0.0

    @property
    def excess_s(self) -> float:
        """How much longer than the bound it was."""
        return self.until - self.since - self.bound_s


class Liveness:
    """Watches the clients of a world and keeps the worst standstill."""

    def __init__(self, endpoint: Endpoint, clients: list[Client]) -> None:
        self.endpoint, self.clients = endpoint, clients
        self.spec, self._clock = endpoint.spec, endpoint.clock
        self.worst = Standstill()
        self._since = [inf] * len(clients)
        self._bound = [0.0] * len(clients)
        self._way_requests = self._way_tokens = 0
        self._last_tokens = 0
        self._most = min(MOST_JUDGED_IN_FLIGHT, self.spec.concurrency or MOST_JUDGED_IN_FLIGHT)
        endpoint.before, endpoint.changed = self.settle, self.mark
        for client in clients:
            client.before, client.changed = self.settle, self.mark
            client.sent, client.arrived = self._sent, self._arrived

    def settle(self) -> None:
        """Closes the state that has lasted until now."""
        now = self._clock.now
        for index, since in enumerate(self._since):
            if since < now:
                still = Standstill(since, now, self._bound[index])
                if still.excess_s > self.worst.excess_s or not self.worst.until:
                    self.worst = still

    def mark(self) -> None:
        """Reads the state that begins now."""
        now = self._clock.now
        out = any(client.in_flight for client in self.clients)
        for index, client in enumerate(self.clients):
            since = self._could_leave_at(client, now, out)
            if since > now:
                self._since[index] = since
            else:
                self._since[index] = min(self._since[index], now) if self._since[index] <= now else now
            if self._since[index] < inf:
                self._bound[index] = self._bound_s(client, self._since[index])

    def _could_leave_at(self, client: Client, now: float, out: bool) -> float:
        """From when on a row of this client would be let in, if nothing else happens."""
        if client.in_flight >= self._most or client.stopped is not None:
            return inf
        tokens = client.largest()
        if tokens is None:
            return inf
        rows = 2 if out else 1  # what is out may still arrive in another order
        at = max(client.ripe_at(now), client.paused_until, now)
        if at == inf:
            return inf
        needed = self.endpoint.amounts(rows + self._way_requests, rows * tokens + self._way_tokens)
        capped = [
            min(need, grant.limit.amount) for need, grant in zip(needed, self.endpoint.grants, strict=True)
        ]
        return max(at, self.endpoint.opens_at(now, capped))

    def _bound_s(self, client: Client, since: float) -> float:
        known = client.saw_answer and (self.spec.told or client.saw_headers)
        bound_s = 1.0 if known else 3.0
        if client.refused_since is not None:
            bound_s = max(bound_s, 0.1 * (since - client.refused_since))
        stranger = self.endpoint.stranger_share(since)
        tokens = max(self._last_tokens, client.largest() or 0)
        for limit in self.spec.limits:
            if limit.kind != "cap" and limit.window_s < DAY_S:
                amount = tokens if limit.of == "tokens" else 1.0
                bound_s = max(bound_s, 2.0 * amount / max(1e-9, rate_per_s(limit, self.spec, stranger)))
        for told, amount in ((self.spec.told_rpm, 1.0), (self.spec.told_tpm, tokens)):
            if told and not self.spec.limits:
                bound_s = max(bound_s, 120.0 * amount / told)
        return bound_s

    def _sent(self, client: Client, rows: list[Row]) -> None:
        self._way_requests += len(rows)
        self._way_tokens += sum(row.tokens for row in rows)
        self._last_tokens = max(row.tokens for row in rows)
        self._since = [inf] * len(self.clients)

    def _arrived(self, row: Row) -> None:
        self._way_requests -= 1
        self._way_tokens -= row.tokens
