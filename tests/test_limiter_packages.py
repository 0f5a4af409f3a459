"""The limiter on servers that nobody here wrote: PyPI's llmock and mocklimit, and LiteLLM's proxy.

Each lives in an environment of its own in pytest's cache, made by the first run. ``-m slow`` runs them.
"""

import json
import math
import re
import secrets
import time
from operator import sub
from pathlib import Path
from typing import Any

import pytest

from tests.field_packages import fetch, free_port, installed, serving
from tests.field_runs import CommandRun, Ran, scene, seen, stage
from tests.field_servers import FieldServer, Reply

__all__ = ["seen", "stage"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
LLMOCK, MOCKLIMIT, LITELLM = "llmock==0.2.2", "mocklimit==0.6.0", "litellm[proxy]==1.108.7"
BINS: dict[str, Path] = {}


@pytest.fixture(scope="module", autouse=True)
def bins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Installs what the chosen tests need, before the first scene."""
    names = " ".join(item.name for item in request.session.items)
    for word, requirement in (("llmock", LLMOCK), ("mocklimit", MOCKLIMIT), ("litellm", LITELLM)):
        if word in names:
            BINS[word] = installed(request, tmp_path_factory, requirement)


def _fail(status: int, times: int = 1, **more: object) -> dict[str, object]:
    return {"type": "fail", "status": status, "times": times, **more}


# name: flags of the server, behaviours that it is told, rows that it makes fail for good
SCENARIOS: dict[str, tuple[list[object], list[dict[str, object]], int]] = {
    "two refusals with Retry-After": ([], [_fail(429, 2, retry_after=1)], 0),
    "a refusal with Retry-After of 4": ([], [_fail(429, 1, retry_after=4)], 0),
    "five refusals that tell nothing": ([], [_fail(429, 5)], 0),
    "server errors": ([], [_fail(status) for status in (500, 502, 503, 504, 529, 408, 409)], 0),
    "an outage of twelve requests": ([], [_fail(503, 12)], 0),
    "an outage of twelve server errors": ([], [_fail(500, 12)], 0),
    "bad requests": ([], [_fail(400), _fail(422)], 2),
    "slow answers": ([], [{"type": "delay", "seconds": 3, "times": 5}], 0),
    "a scripted answer": ([], [{"type": "reply", "text": "said", "times": 3}], 0),
    "a quota of requests": (["--rpm", 120], [], 0),
    "a quota of tokens": (["--tpm", 16_000], [], 0),
    "errors at random": (["--error-rate", "429=0.1", "--error-rate", "503=0.1"], [], 0),
}


def _llmock(
    folder: Path, flags: list[object], behaviors: list[dict[str, object]], rows: int, limit_s: float
) -> Any:
    port = free_port()
    root = f"http://127.0.0.1:{port}"
    words = [BINS["llmock"] / "llmock", "serve", "--port", port, "--log-level", "warning", *flags]
    with serving([*words, "--latency-ms", 100], folder, f"{root}/health"):
        if behaviors:
            fetch(f"{root}/_llmock/scenario", json.dumps({"behaviors": behaviors}).encode())
        run = CommandRun(folder, f"{root}/v1", rows, "--max-attempts", 10, clock=time.monotonic)
        ran = run.wait(limit_s)
        return json.loads(fetch(f"{root}/_llmock/verdict")), ran


def _llmock_scenario(folder: Path, name: str) -> Any:
    flags, behaviors, _ = SCENARIOS[name]
    return _llmock(folder, flags, behaviors, 150 if flags else 40, 60)


@pytest.mark.parametrize("name", list(SCENARIOS))
@scene(_llmock_scenario)
def test_llmock_passes_its_verdict_on_every_scenario(seen: tuple[dict[str, Any], Ran], name: str) -> None:
    verdict, ran = seen
    flags, behaviors, failing = SCENARIOS[name]
    assert verdict["passed"], verdict["findings"]
    assert verdict["faults_injected"] >= sum(told["type"] == "fail" for told in behaviors)
    assert ran.status == (1 if failing else 0), f"status {ran.status}: {ran.err[-500:]}"
    assert ran.summary["answered"] == (150 if flags else 40) - failing
    # llmock's 503 asks for a pause; the probes of an outage that outlasts it are at most 3 s apart.
    assert ran.seconds <= (45 if flags or name == "an outage of twelve requests" else 25)


NOISE = ["--error-rate", "429=0.1", "--error-rate", "500=0.05", "--error-rate", "503=0.05"]


@scene(lambda folder: _llmock(folder, list(NOISE), [], 300, 150))
def test_llmock_with_refusals_and_errors_at_random_takes_what_the_retries_need(
    seen: tuple[dict[str, Any], Ran],
) -> None:
    """300 rows are about 375 attempts; a row that is refused five times running waits about 15 s in all."""
    verdict, ran = seen
    assert verdict["passed"], verdict["findings"]
    assert ran.status == 0, f"status {ran.status}: {ran.err[-500:]}"
    assert ran.seconds <= 60


RPM, ROWS = 600, 1_200
STRATEGIES: dict[str, dict[str, float]] = {
    "fixed_window": {"limit": RPM, "window_seconds": 60},
    "sliding_window": {"limit": RPM, "window_seconds": 60},
    "token_bucket": {"capacity": RPM, "refill_rate": RPM / 60},
}
SPEC = {
    "openapi": "3.0.0",
    "info": {"title": "chat", "version": "1"},
    "servers": [{"url": "http://127.0.0.1/v1"}],
    "paths": {"/chat/completions": {"post": {"responses": {"200": {
        "description": "answer",
        "content": {"application/json": {"schema": {"type": "object", "properties": {
            "id": {"type": "string"}, "object": {"type": "string"}, "model": {"type": "string"},
            "created": {"type": "integer"},
            "choices": {"type": "array", "items": {"type": "object", "properties": {
                "index": {"type": "integer"},
                "finish_reason": {"type": "string", "enum": ["stop"]},
                "message": {"type": "object", "properties": {
                    "role": {"type": "string", "enum": ["assistant"]}, "content": {"type": "string"}}},
            }}},
        }}}},
    }}}}},
}  # fmt: skip
DECIDED = re.compile(r"^(\d+) POST \S+ -> (\d+) .*\[([\d.]+)ms\]", re.MULTILINE)


def _mocklimit(folder: Path, strategy: str, tells: str) -> tuple[list[float], int, Ran]:
    """When rows were let in, in seconds, by the server's own log; how many requests were refused; the run."""
    names = {name: f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset")}
    shown: dict[str, Any] = {"headers": names} if tells == "headers" else {}
    retry_after = "Retry-After" if tells == "headers" else "x-not-read"
    one = {"strategy": "fixed", "value": 1}
    nothing = {"strategy": "fixed", "value": 0}
    config = {
        "policies": {"chat": {
            "strategy": strategy, "scope": "api_key",
            "limits": [{"dimension": "requests", **STRATEGIES[strategy], **shown}],
            "format": {"reset": "go_duration", "retry_after": {"header": retry_after, "unit": "seconds"}},
        }},
        "endpoints": {"/chat/completions": {
            "methods": ["POST"], "policy": "chat", "timing": {"base_ms": [100, 400]},
            "resources": {"requests": {"input": one, "output": nothing}},
        }},
    }  # fmt: skip
    (folder / "spec.yaml").write_text(json.dumps(SPEC))
    (folder / "limits.yaml").write_text(json.dumps(config))
    port = free_port()
    words = [BINS["mocklimit"] / "mocklimit", "serve", "--spec", folder / "spec.yaml", "--port", port]
    words += ["--rate-config", folder / "limits.yaml", "--log-format", "{time:x} {message}"]
    told = ["--rpm", RPM] if tells == "told" else []
    with serving(list(words), folder, f"http://127.0.0.1:{port}/mocklimit/stats") as log:
        ran = CommandRun(folder, f"http://127.0.0.1:{port}/v1", ROWS, *told, clock=time.monotonic).wait(260)
        decided = DECIDED.findall(log.read_text())
    let_in = sorted(int(at) / 1e6 - float(took) / 1e3 for at, status, took in decided if status == "200")
    return let_in, sum(status == "429" for _, status, _ in decided), ran


# what is told: least share of the quota, most refusals
AIMS = {"told": (0.99, 1), "headers": (0.95, 12), "silent": (0.95, 40)}


@pytest.mark.parametrize("tells", list(AIMS))
@pytest.mark.parametrize("strategy", list(STRATEGIES))
@scene(_mocklimit)
def test_mocklimit_grants_nearly_its_quota_and_refuses_next_to_nothing(
    seen: tuple[list[float], int, Ran], strategy: str, tells: str
) -> None:
    """The share of the quota is held against the even pace.

    It is (rows - 1) ÷ (the limit per second × seconds from the first to the last admission), by the server's log:
    1 is the even pace, 120 s. What an empty window or a full bucket lets in at once is not taken off, so a client
    that uses it gets more than 1: 2 at a bucket (60 s), and still more at a window of the clock that turns soon.
    One that paces evenly from the start, as it must where it is only told the limit, loses nothing by it.
    """
    let_in, refused, ran = seen
    least, most = AIMS[tells]
    assert ran.status == 0, f"status {ran.status} with {len(let_in)} of {ROWS} rows: {ran.err[-500:]}"
    assert len(let_in) == ROWS
    share = (ROWS - 1) / (RPM / 60 * (let_in[-1] - let_in[0]))
    print(f"{strategy}, {tells}: share {share:.3f}, refused {refused}")
    assert share >= least and refused <= most, f"share {share:.3f}, refused {refused}"


LITELLM_CONFIG = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "{url}", api_key: sk-upstream, rpm: 120}}
router_settings: {{optional_pre_call_checks: [enforce_model_rate_limits], num_retries: 0, disable_cooldowns: true}}
litellm_settings: {{num_retries: 0}}
"""


def _litellm(folder: Path) -> tuple[FieldServer, Ran, int]:
    key = f"sk-{secrets.token_hex(32)}"
    with FieldServer(lambda now, row: Reply(after_s=0.2)) as upstream:
        (folder / "config.yaml").write_text(LITELLM_CONFIG.format(url=upstream.base_url))
        root = f"http://127.0.0.1:{(port := free_port())}"
        words = [BINS["litellm"] / "litellm", "--config", folder / "config.yaml", "--host", "127.0.0.1"]
        environment = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with serving([*words, "--port", port], folder, f"{root}/health/liveliness", environment) as log:
            run = CommandRun(folder, f"{root}/v1", 300, key=key, clock=upstream.now)
            ran = run.wait(240)
            refused = log.read_text().count('" 429')
    return upstream, ran, refused


@scene(_litellm)
def test_litellm_shows_a_limit_without_a_reset_and_it_is_held(seen: tuple[FieldServer, Ran, int]) -> None:
    """120 a minute in fixed minutes of the clock; the answers tell limit and remaining, and never a reset.

    300 rows need two turns of the minute at most, so 61 to 120 s and the start. What is in flight when the minute
    is spent may be refused. Each turn is found by probes, and liveness asks for one after the longest of a second
    and a tenth of the block: 10 in the first ten seconds, 17 more up to a minute.
    """
    upstream, ran, refused = seen
    assert ran.status == 0, f"status {ran.status}, {len(upstream.admitted)} rows: {ran.err[-500:]}"
    blocks_s = [gap for gap in map(sub, upstream.admitted[1:], upstream.admitted) if gap > 3.0]
    print(f"litellm: {upstream.span_s:.0f} s, refused {refused}, blocks {[round(gap) for gap in blocks_s]} s")
    probes = sum(min(gap, 10.0) + math.log(max(gap, 10.0) / 10.0) / math.log(1.1) for gap in blocks_s)
    assert refused <= 5 + probes
    assert upstream.longest_gap_s() <= 66
    assert upstream.span_s <= 150
