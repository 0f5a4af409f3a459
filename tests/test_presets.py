import ast
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from batchllm import presets
from batchllm.errors import UsageError

EVERY = [presets.load(name) for name in presets.names()]


def test_the_presets_that_the_documentation_names_are_there() -> None:
    wanted = "openai megallm azure openrouter groq together mistral deepseek"
    engines = "ollama vllm llama.cpp lmstudio simulator"
    assert set(wanted.split()) | set(engines.split()) <= set(presets.names())
    assert presets.load("megallm").base_url == "https://ai.megallm.io/v1"


@pytest.mark.parametrize("preset", EVERY, ids=lambda preset: preset.name)
def test_a_preset_is_complete(preset: presets.Preset) -> None:
    assert preset.docs
    assert preset.charge in {"max_tokens", "sum", "usage", "split"}
    assert preset.key_variable or not preset.needs_key
    assert (
        preset.base_url
        or preset.base_url_variable
        or preset.name in {"simulator", "custom", "custom-x-api-key"}
    )
    assert not preset.base_url.endswith("/")
    local = urlsplit(preset.base_url).hostname == "localhost"
    assert preset.base_url.startswith("http://" if local else "https://") or not preset.base_url
    assert preset.needs_key is False or not local
    if preset.batch:
        assert preset.batch.max_requests >= 50_000
        assert 100_000_000 <= preset.batch.max_bytes <= 200_000_000
        assert preset.batch.windows[0] == "24h"
        assert Decimal(str(preset.batch.discount)) == Decimal("0.5")


@pytest.mark.parametrize("preset", EVERY, ids=lambda preset: preset.name)
def test_a_default_model_does_not_reason(preset: presets.Preset) -> None:
    assert presets.reasoning(preset.default_model, preset.default_parameters) is None


def test_only_what_was_run_is_called_verified_and_only_the_simulator_is_free() -> None:
    assert [preset.name for preset in EVERY if preset.verified] == ["simulator"]
    assert [preset.name for preset in EVERY if preset.free] == ["simulator"]


def test_batch_limits_are_data() -> None:
    facts = {preset.name: preset.batch for preset in EVERY if preset.batch}
    assert set(facts) == {"openai", "azure", "groq", "together", "simulator", "custom"}
    assert (facts["openai"].max_requests, facts["openai"].max_bytes) == (50_000, 200_000_000)
    assert facts["together"].max_bytes == facts["groq"].max_bytes == 100_000_000


def test_an_unknown_preset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"did you mean openrouter\?.*simulator.*--base-url"):
        presets.load("open-router")
    with pytest.raises(UsageError, match="no such preset; there are"):
        presets.load("zzz")
    with pytest.raises(UsageError):
        presets.load("reasoning")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://API.openai.com:443/v1/", "openai"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://contoso.openai.azure.com/openai", "azure"),
        ("https://openai.azure.com", None),
        ("https://api.openai.com.example.org/v1", None),
        ("https://evil-openrouter.ai/v1", None),
        ("http://localhost:11434/v1", None),
        ("", None),
    ],
)
def test_a_url_tells_its_preset_by_its_host(url: str, name: str | None) -> None:
    preset = presets.for_base_url(url)
    assert (preset.name if preset else None) == name


@pytest.mark.parametrize(
    ("model", "efforts", "parameter"),
    [
        ("o1", ("low", "medium", "high"), "max_completion_tokens"),
        ("o4-mini-2025-04-16", ("low", "medium", "high"), "max_completion_tokens"),
        ("openai/gpt-5-nano", ("minimal", "low", "medium", "high"), "max_completion_tokens"),
        ("GPT-5-2025-08-07", ("minimal", "low", "medium", "high"), "max_completion_tokens"),
        ("gpt-5.1", ("none", "low", "medium", "high"), "max_completion_tokens"),
        ("gpt-5.4-mini", ("none", "low", "medium", "high", "xhigh"), "max_completion_tokens"),
        ("gpt-5-pro", ("high",), "max_completion_tokens"),
        ("o1-mini", (), "max_completion_tokens"),
        ("gpt-oss-20b", ("low", "medium", "high"), "max_tokens"),
        ("deepseek-reasoner", (), "max_tokens"),
        ("deepseek-r1:8b", (), "max_tokens"),
        ("moonshotai/kimi-k2-thinking", (), "max_tokens"),
        ("qwen3-235b-a22b-thinking-2507", (), "max_tokens"),
    ],
)
def test_models_that_reason_are_known(model: str, efforts: tuple[str, ...], parameter: str) -> None:
    known = presets.reasoning(model)
    assert known is not None
    assert (known.efforts, known.max_tokens_parameter) == (efforts, parameter)


@pytest.mark.parametrize(
    "model",
    ["gpt-4o-mini", "gpt-4.1", "gpt-5-chat-latest", "chatgpt-4o-latest", "olmo-2", "o200k",
     "qwen3-30b-a3b-instruct-2507", "deepseek-chat", "llama-3.1-8b-instant",
     "mistral-small-latest", "simulator", ""],
)  # fmt: skip
def test_models_that_answer_at_once_are_left_alone(model: str) -> None:
    assert presets.reasoning(model) is None


def test_sampling_is_refused_while_a_model_reasons_and_taken_when_it_does_not() -> None:
    known = presets.reasoning("gpt-5.2")
    assert known is not None
    assert "temperature" in known.refused_at("low")
    assert known.refused_at("none") == frozenset()
    assert known.lowest_effort == "none"
    assert known.room_tokens("none") == 0
    rooms = [known.room_tokens(effort) for effort in known.efforts]
    assert rooms == sorted(rooms)


def test_parameters_that_switch_reasoning_off_are_understood() -> None:
    assert presets.reasoning("deepseek-v4-flash") is not None
    assert presets.reasoning("deepseek-v4-flash", {"thinking": {"type": "enabled"}}) is not None
    assert presets.reasoning("deepseek-v4-flash", {"thinking": {"type": "disabled"}}) is None


def test_no_module_branches_on_the_name_of_a_vendor() -> None:
    vendors = set(presets.names()) - {presets.SIMULATOR, presets.CUSTOM}
    package = Path(presets.__file__).parent
    compared = [
        f"{path.name}, line {constant.lineno}: {constant.value}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Compare | ast.match_case)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and constant.value in vendors
    ]
    assert compared == []
