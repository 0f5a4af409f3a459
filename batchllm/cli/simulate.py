"""``batchllm simulate``: runs the simulator as a server, to rehearse a job without paying."""

from typing import Annotated

import typer

from batchllm.errors import UsageError


def simulate(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", metavar="PORT")] = 8080,
    latency: Annotated[
        float, typer.Option(help="Median seconds of an answer; the tail is long.", metavar="SECONDS")
    ] = 0.0,
    rpm: Annotated[
        float | None, typer.Option(help="Rate limit in requests per minute.", metavar="NUMBER")
    ] = None,
    tpm: Annotated[
        float | None, typer.Option(help="Rate limit in tokens per minute.", metavar="NUMBER")
    ] = None,
    error_rate: Annotated[
        list[str] | None,
        typer.Option(
            help="Faults, as KIND=SHARE: 429=0.1, 500=…, timeout=…, reset=…, cut=…", metavar="KIND=SHARE"
        ),
    ] = None,
    batch_seconds: Annotated[
        float, typer.Option(help="Seconds that a batch takes.", metavar="SECONDS")
    ] = 0.05,
    batch_failures: Annotated[
        float, typer.Option(help="Share of a batch's requests that fail.", metavar="SHARE")
    ] = 0.0,
    batch_expires_after: Annotated[
        float | None, typer.Option(help="Batches expire when this share is done.", metavar="SHARE")
    ] = None,
    batch_enqueued_tokens: Annotated[
        int | None, typer.Option(help="The most tokens that unfinished batches may have.", metavar="TOKENS")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of faults and latencies.", metavar="INTEGER")] = 0,
) -> None:
    """Run an OpenAI-compatible server that answers without a model, until Ctrl-C."""
    from batchllm.simulator import BatchSettings, SimulatorSettings, serve

    serve(
        SimulatorSettings(
            port=port,
            latency_s=latency,
            requests_per_minute=rpm,
            tokens_per_minute=tpm,
            error_rate=_rates(error_rate or []),
            seed=seed,
            batches=BatchSettings(
                seconds=batch_seconds,
                failure_rate=batch_failures,
                expire_after_fraction=batch_expires_after,
                enqueued_tokens=batch_enqueued_tokens,
            ),
        )
    )


def _rates(pairs: list[str]) -> dict[str, float]:
    rates = {}
    for pair in (part for text in pairs for part in text.split(",")):
        kind, _, share = pair.partition("=")
        try:
            rates[kind.strip()] = float(share)
        except ValueError:
            raise UsageError(f"--error-rate {pair}: expected KIND=SHARE, such as 429=0.1") from None
    return rates
