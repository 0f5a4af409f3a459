"""The description of a world: frozen, printable as one line, and readable from that line again."""

import json
from dataclasses import MISSING, dataclass, fields
from typing import Any

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of an endpoint.

    Attributes:
        kind: ``bucket``, ``fixed``, ``log`` (sliding log), ``counter`` (sliding counter) or ``cap`` (in flight).
        amount: What fits into a window; for a cap, the slots.
        of: ``requests`` or ``tokens``.
        window_s: The length of the window; a bucket holds ``amount`` and refills in this time.
        used: The share that is spent when the job begins, from 0 to 1.
        phase: Where in its window the job begins, from 0 to 1.
    """

    kind: str
    amount: float
    of: str = "requests"
    window_s: float = 60.0
    used: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True, slots=True)
class Spec:
    """A world.

    Attributes:
        name: Its class.
        seed: Of everything that is drawn while it runs.
        rows, prompt_tokens, size_sigma, max_tokens: The job; ``size_sigma`` is that of a lognormal.
        charge: What the endpoint takes off a token limit: ``max_tokens`` or ``estimate``.
        told_rpm, told_tpm, concurrency: What the user says.
        limits: The limits of the endpoint; none at all is possible.
        latency_s, latency_sigma: Median and sigma of an answer's lognormal latency.
        late_share, late_s: The share of answers that come late, and by how much at most.
        headers: The dialect of the headers, ``""`` for none (see ``tells``).
        lie: ``""``, ``free`` (all free), ``none`` (nothing free) or ``ten`` (ten times the limit).
        retry_after: ``""``, ``true``, or seconds that are always the same.
        noise: The share of requests that are refused at random.
        busy: The share of requests that are answered with 503 at random.
        chance_retry_after: The Retry-After of both, ``""`` for none.
        refusal_s: How long a refusal at random takes.
        faults: The share of requests that end in a connection error or a 500.
        outage: Start and length of a time in which nothing gets through.
        odd_first, odd_retry_after: How many of the first requests are refused, and with which Retry-After.
        clients: How many of ours share the limits; each has ``rows`` of its own.
        stranger: Shares that a stranger takes in turn, each for ``stranger_s``.
    """

    name: str = "by hand"
    seed: int = 1
    rows: int = 100
    prompt_tokens: int = 200
    size_sigma: float = 0.0
    max_tokens: int = 200
    charge: str = "estimate"
    told_rpm: float | None = None
    told_tpm: float | None = None
    concurrency: int | None = None
    limits: tuple[Limit, ...] = ()
    latency_s: float = 0.5
    latency_sigma: float = 0.3
    late_share: float = 0.0
    late_s: float = 0.0
    headers: str = ""
    lie: str = ""
    retry_after: str = ""
    noise: float = 0.0
    busy: float = 0.0
    chance_retry_after: str = ""
    refusal_s: float = 0.005
    faults: float = 0.0
    outage: tuple[float, float] | None = None
    odd_first: int = 0
    odd_retry_after: str = ""
    clients: int = 1
    stranger: tuple[float, ...] = ()
    stranger_s: float = 60.0

    def __str__(self) -> str:
        """One line of JSON with what differs from the defaults."""
        return json.dumps(_changed(self), separators=(",", ":"))

    @property
    def told(self) -> bool:
        """The user names a limit."""
        return self.told_rpm is not None or self.told_tpm is not None

    @property
    def slots(self) -> int:
        """Requests in flight at most, by the user, by the product, and by the endpoint's caps."""
        caps = [int(limit.amount) for limit in self.limits if limit.kind == "cap"]
        return min([(self.concurrency or 256) * self.clients, *caps])


def _changed(thing: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(thing):
        value = getattr(thing, field.name)
        if field.default is MISSING or value != field.default:
            found[field.name] = [_changed(limit) for limit in value] if field.name == "limits" else value
    return found


def parse(line: str) -> Spec:
    """Reads the line that ``str(spec)`` prints."""
    read = json.loads(line)
    read["limits"] = tuple(Limit(**limit) for limit in read.get("limits", ()))
    read["stranger"] = tuple(read.get("stranger", ()))
    if read.get("outage") is not None:
        read["outage"] = tuple(read["outage"])
    return Spec(**read)
