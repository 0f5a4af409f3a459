"""What chance does to a request: time on the way, slow and late answers, refusals and faults without a reason."""

import random

from batchllm.retry import Disposition, Verdict

from .spec import Spec

CONNECT = Verdict(Disposition.TRANSIENT, "connect", "no connection")
BROKEN = Verdict(Disposition.TRANSIENT, "http_500", "the endpoint answered 500")
SAVING_S = 0.004  # until an answer is durable


def way_s(rng: random.Random) -> float:
    """Seconds on the way, there or back."""
    delay = 0.004 + 0.012 * rng.random()
    return delay + 0.08 * rng.random() if rng.random() < 0.003 else delay


def timer_s(rng: random.Random) -> float:
    """How late a timer fires."""
    return -0.001 + 0.005 * rng.random()


def work_s(spec: Spec, rng: random.Random) -> float:
    """Seconds of work for an answer: lognormal, at most ten minutes, and now and then late."""
    latency_s = min(500.0, spec.latency_s * rng.lognormvariate(0.0, spec.latency_sigma))
    if spec.late_share and rng.random() < spec.late_share:
        latency_s += spec.late_s * rng.random()
    return latency_s


def mean_work_s(spec: Spec) -> float:
    """The mean of ``work_s``."""
    return float(
        spec.latency_s * 2.718281828 ** (0.5 * spec.latency_sigma**2) + 0.5 * spec.late_share * spec.late_s
    )


def down(spec: Spec, now: float) -> bool:
    """Nothing gets through now."""
    return spec.outage is not None and 0.0 <= now - spec.outage[0] < spec.outage[1]


def fault(spec: Spec, rng: random.Random) -> Verdict | None:
    """A fault of this request, if it has one."""
    if not spec.faults or rng.random() >= spec.faults:
        return None
    return CONNECT if rng.random() < 0.5 else BROKEN
