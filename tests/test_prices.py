import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import Usage as TheirUsage
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm import prices
from batchllm.errors import UsageError
from batchllm.prices import Price, Rates, cost, price
from batchllm.records import Usage

OPENAI = "https://api.openai.com/v1"
WHEN = datetime(2026, 11, 1, tzinfo=UTC)
PLAIN = Price(rates=(Rates(input=Decimal(1), output=Decimal(10), cached_input=Decimal("0.1")),))


def written(tmp_path: Path, table: object) -> Path:
    path = tmp_path / "prices.json"
    path.write_text(table if isinstance(table, str) else json.dumps(table))
    os.utime(path, (1_790_000_000, 1_790_000_000))
    return path


def test_a_known_model_has_a_price_with_its_source_and_date() -> None:
    found = price(OPENAI, "gpt-4o-mini", when=WHEN)
    assert found is not None
    assert (found.rates[0].input, found.rates[0].output) == (Decimal("0.15"), Decimal("0.6"))
    assert found.rates[0].cached_input == Decimal("0.075")
    assert found.source.startswith("genai-prices 0.2.")
    assert found.source.endswith(", for 2026-11-01")


@pytest.mark.parametrize(
    ("url", "model"),
    [
        (OPENAI, "no-such-model"),
        (OPENAI, ""),
        ("", "gpt-4o-mini"),
        ("http://localhost:8000/v1", "gpt-4o-mini"),
        ("https://ai.megallm.io/v1", "gpt-4o-mini"),
        ("https://contoso.openai.azure.com/openai", "my-deployment"),
        ("https://api.perplexity.ai", "sonar-deep-research"),
    ],
)
def test_an_unknown_price_is_none_and_never_0(url: str, model: str) -> None:
    assert price(url, model) is None
    assert cost(Usage(prompt_tokens=1, completion_tokens=1), price(url, model)) is None


def test_the_simulator_is_known_to_cost_nothing_unless_a_table_names_its_model(tmp_path: Path) -> None:
    entry = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    table = prices.load_table(written(tmp_path, {"simulator": entry}))
    free = price("http://127.0.0.1:1/v1", "simulator", preset="simulator")
    assert free is not None
    assert cost(Usage(prompt_tokens=10, completion_tokens=10), free) == 0
    assert "simulator" in free.source
    named = price("http://127.0.0.1:1/v1", "simulator", preset="simulator", table=table)
    assert cost(Usage(prompt_tokens=1_000_000, completion_tokens=1_000_000), named) == 3


def test_cached_tokens_have_their_price_and_reasoning_is_counted_once() -> None:
    usage = Usage(prompt_tokens=1000, completion_tokens=100, cached_tokens=400, reasoning_tokens=90)
    assert cost(usage, PLAIN) == Decimal("0.00164")
    whole = Price(rates=(Rates(input=Decimal(1), output=Decimal(10)),))
    assert cost(usage, whole) == Decimal("0.002")


def test_more_cached_tokens_than_tokens_never_make_a_negative_price() -> None:
    assert cost(Usage(prompt_tokens=10, completion_tokens=0, cached_tokens=1000), PLAIN) == Decimal(
        "0.000001"
    )


@pytest.mark.parametrize(
    "usage", [Usage(), Usage(prompt_tokens=5), Usage(completion_tokens=5), Usage(total_tokens=9)]
)
def test_unknown_usage_has_no_cost(usage: Usage) -> None:
    assert cost(usage, PLAIN) is None


def test_a_long_prompt_pays_the_rate_of_its_tier_for_all_of_it() -> None:
    tiered = price(OPENAI, "gpt-5.4", when=WHEN)
    assert tiered is not None
    at, above = (
        cost(Usage(prompt_tokens=tokens, completion_tokens=0), tiered) for tokens in (272_000, 272_001)
    )
    assert at == 272_000 * tiered.rates[0].input / 1_000_000
    assert above == 272_001 * tiered.rates[1].input / 1_000_000
    assert tiered.rates[1].input == 2 * tiered.rates[0].input


URLS = {
    "openai": OPENAI,
    "groq": "https://api.groq.com/openai/v1",
    "together": "https://api.together.xyz/v1",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
}
PRICED = [
    (url, model.id, found)
    for provider in get_snapshot().providers
    if (url := URLS.get(provider.id))
    for model in provider.models
    if (found := price(url, model.id, when=WHEN))
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PRICED), st.integers(0, 2_000_000), st.integers(0, 100_000), st.floats(0, 1))
def test_an_answer_costs_what_genai_prices_itself_reckons(
    known: tuple[str, str, Price], prompt: int, completion: int, share: float
) -> None:
    url, model, found = known
    cached = int(prompt * share)
    info = get_snapshot().find_provider_model(model, None, None, url)[1]
    theirs = info.get_prices(WHEN).calc_price(
        TheirUsage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached)
    )
    mine = cost(Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached), found)
    assert mine == theirs["total_price"]


def test_most_chat_models_of_the_vendors_have_a_price() -> None:
    assert len(PRICED) > 200


def test_a_table_in_litellms_format_goes_before_the_published_prices(tmp_path: Path) -> None:
    table = prices.load_table(
        written(
            tmp_path,
            {
                "sample_spec": {"mode": "chat", "input_cost_per_token": None},
                "text-embedding": {"input_cost_per_token": 1e-7},
                "gpt-4o-mini": {"input_cost_per_token": 1.5e-6, "output_cost_per_token": 6e-6},
                "groq/llama": {
                    "input_cost_per_token": 5e-8,
                    "output_cost_per_token": 8e-8,
                    "cache_read_input_token_cost": 1e-8,
                    "input_cost_per_token_above_128k_tokens": 1e-7,
                    "output_cost_per_token_above_128k_tokens": 2e-7,
                    "input_cost_per_request": 0.001,
                },
            },
        )
    )
    assert set(table) == {"gpt-4o-mini", "groq/llama"}
    mine = price(OPENAI, "gpt-4o-mini", table=table)
    assert mine is not None
    assert (mine.rates[0].input, mine.source) == (Decimal("1.5"), "prices.json, 2026-09-21")
    llama = price("https://elsewhere.example/v1", "llama", preset="groq", table=table)
    assert cost(Usage(prompt_tokens=1000, completion_tokens=1000, cached_tokens=500), llama) == Decimal(
        "0.00111"
    )
    assert cost(Usage(prompt_tokens=200_000, completion_tokens=0), llama) == Decimal("0.021")
    published = price(OPENAI, "gpt-4.1-nano", table=table)
    assert published is not None
    assert published.source.startswith("genai-prices")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "an object of models"),
        ('{"m": 3}', "an object of models"),
        (
            '{"m": {"input_cost_per_token": "x", "output_cost_per_token": 1}}',
            "m: input_cost_per_token must be",
        ),
        (
            '{"m": {"input_cost_per_token": -1, "output_cost_per_token": 1}}',
            "m: input_cost_per_token must be",
        ),
        ('{"m": {"input_cost_per_token": NaN, "output_cost_per_token": 1}}', "must be a number of dollars"),
        ('{"m": {"input_cost_per_token": true, "output_cost_per_token": 1}}', "must be a number of dollars"),
    ],
)
def test_a_bad_table_is_refused_with_file_model_and_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        prices.load_table(written(tmp_path, text))
    assert "prices.json" in str(caught.value)


def test_a_missing_table_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json: No such file"):
        prices.load_table(tmp_path / "none.json")


def test_context_windows_are_known_or_none() -> None:
    assert prices.context_window(OPENAI, "gpt-4o-mini") == 128_000
    assert prices.context_window(OPENAI, "no-such-model") is None
    assert prices.context_window("http://localhost:1/v1", "gpt-4o-mini") is None


def test_the_price_table_loads_at_the_first_price_and_asks_no_network() -> None:
    program = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from batchllm import prices\n"
        "assert 'genai_prices' not in sys.modules and 'pydantic' not in sys.modules\n"
        f"assert prices.price({OPENAI!r}, 'gpt-4o-mini')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
