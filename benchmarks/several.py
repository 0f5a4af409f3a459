"""What several endpoints cost: rows a second with eight URLs of a static server, against one."""

from report import Figure
from rows import write_input
from servers import static_server
from suite import Bench, pairs

ENDPOINTS = 8
TARGET = 0.95


def measure(bench: Bench) -> list[Figure]:
    """The part ``endpoints``; as many requests are in flight in all."""
    source = write_input(bench.folder, bench.size.rows)
    concurrency = bench.size.concurrency[0]
    each = concurrency // ENDPOINTS
    with static_server(bench.folder) as server:
        root = server.base_url.removesuffix("/v1")
        more = [word for number in range(1, ENDPOINTS) for word in ("--base-url", f"{root}/{number}/v1")]
        runs = pairs(
            bench.size.repeats,
            lambda: bench.batchllm(source, server, "-c", str(concurrency)),
            lambda: bench.batchllm(source, server, *more, "-c", str(each)),
        )
    rows = bench.size.rows
    return [
        Figure(
            part="endpoints",
            what=f"batchllm, one endpoint, {concurrency} in flight",
            samples=[rows / one.seconds for one, _ in runs],
            unit="rows/s",
        ),
        Figure(
            part="endpoints",
            what=f"batchllm, {ENDPOINTS} endpoints, {each} in flight at each",
            samples=[rows / several.seconds for _, several in runs],
            unit="rows/s",
            ratios=[one.seconds / several.seconds for one, several in runs],
            against="one endpoint",
            target=TARGET,
        ),
    ]
