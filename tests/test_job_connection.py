import os
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import UsageError
from batchllm.job import assemble
from batchllm.records import Endpoint

KEY = {"OPENAI_API_KEY": "sk-one"}


def connect(environ: dict[str, str] | None = None, *, needs_key: bool = True, **flags: Any) -> Endpoint:
    return assemble("summarize", {"input": "rows.csv", **flags}, environ or {}, needs_key=needs_key).endpoint


def test_a_key_alone_means_openai_with_a_cheap_model() -> None:
    endpoint = connect(KEY)
    assert (endpoint.preset, endpoint.base_url) == ("openai", "https://api.openai.com/v1")
    assert (endpoint.api_key, endpoint.key_source) == ("sk-one", "OPENAI_API_KEY")
    assert endpoint.model == "gpt-4o-mini"
    assert "sk-one" not in repr(endpoint)


def test_the_variables_of_the_sdk_mean_what_they_mean_to_it() -> None:
    endpoint = connect(
        {
            **KEY,
            "OPENAI_BASE_URL": "https://gateway.example/v1/",
            "OPENAI_MODEL": "some-model",
            "OPENAI_ORG_ID": "org-1",
            "OPENAI_PROJECT_ID": "proj-1",
        }
    )
    assert (endpoint.preset, endpoint.base_url) == ("custom", "https://gateway.example/v1")
    assert (endpoint.model, endpoint.organization, endpoint.project) == ("some-model", "org-1", "proj-1")
    assert connect({**KEY, "OPENAI_BASE_URL": "https://api.groq.com/openai/v1"}).preset == "groq"
    assert connect({**KEY, "OPENAI_BASE_URL": "", "OPENAI_MODEL": " "}).preset == "openai"


def test_a_named_provider_has_its_own_url_and_key() -> None:
    environ = {**KEY, "OPENAI_BASE_URL": "https://gateway.example/v1", "GROQ_API_KEY": "gsk"}
    endpoint = connect({**environ, "OPENAI_ORG_ID": "org-1"}, provider="groq")
    assert (endpoint.base_url, endpoint.api_key) == ("https://api.groq.com/openai/v1", "gsk")
    assert endpoint.organization is None


def test_the_openai_key_is_not_sent_to_another_named_provider() -> None:
    with pytest.raises(UsageError, match="set GROQ_API_KEY"):
        connect(KEY, provider="groq")
    with pytest.raises(UsageError, match="set GROQ_API_KEY"):
        connect(KEY, provider="groq", base_url="https://api.groq.com/openai/v1")


def test_without_key_and_provider_the_error_says_what_to_set_and_how_to_rehearse() -> None:
    with pytest.raises(UsageError, match=r"OPENAI_API_KEY.*--provider.*--base-url.*--provider simulator"):
        connect()
    with pytest.raises(UsageError, match="MISTRAL_API_KEY is set, so perhaps --provider mistral"):
        connect({"MISTRAL_API_KEY": "x"})
    with pytest.raises(
        UsageError, match=r"there is no key for https://gateway.example/v1: set OPENAI_API_KEY"
    ):
        connect(base_url="https://gateway.example/v1")
    assert connect(needs_key=False).api_key is None


def test_the_simulator_answers_only_by_name_and_never_gets_a_key() -> None:
    endpoint = connect({**KEY, "OPENAI_BASE_URL": "https://gateway.example/v1"}, provider="simulator")
    assert (endpoint.preset, endpoint.base_url, endpoint.api_key) == ("simulator", "", None)
    alone = connect(provider="simulator", base_url="http://127.0.0.1:8080/v1")
    assert (alone.preset, alone.base_url) == ("simulator", "http://127.0.0.1:8080/v1")
    with pytest.raises(UsageError, match="is not the simulator"):
        connect(KEY, provider="simulator", base_url="https://api.openai.com/v1")


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1"])
def test_a_loopback_url_needs_no_key_and_no_model(url: str) -> None:
    endpoint = connect(base_url=url)
    assert (endpoint.preset, endpoint.base_url, endpoint.api_key, endpoint.model) == ("custom", url, None, "")


def test_a_local_engine_by_name_needs_no_key() -> None:
    endpoint = connect(KEY, provider="ollama")
    assert (endpoint.base_url, endpoint.api_key, endpoint.model) == ("http://localhost:11434/v1", None, "")
    assert connect({"VLLM_API_KEY": "v"}, provider="vllm", base_url="http://gpu:8000/v1").api_key == "v"


def test_plain_http_beyond_the_private_network_must_be_allowed() -> None:
    with pytest.raises(UsageError, match=r"--base-url http://llm.example/v1 .*--allow-http"):
        connect(KEY, base_url="http://llm.example/v1")
    with pytest.raises(UsageError, match=r"OPENAI_BASE_URL http://llm.example/v1 .*--allow-http"):
        connect({**KEY, "OPENAI_BASE_URL": "http://llm.example/v1"})
    assert connect(KEY, base_url="http://llm.example/v1", allow_http=True).allow_http
    assert connect(KEY, base_url="http://192.168.1.9:8000/v1").base_url == "http://192.168.1.9:8000/v1"


def test_azure_takes_endpoint_key_version_and_deployment() -> None:
    environ = {"AZURE_OPENAI_ENDPOINT": "https://contoso.openai.azure.com/", "AZURE_OPENAI_API_KEY": "az"}
    endpoint = connect(environ, provider="azure", model="my-deployment")
    assert endpoint.base_url == "https://contoso.openai.azure.com/openai"
    assert (endpoint.api_key, endpoint.azure_api_version) == ("az", "2024-10-21")
    assert (endpoint.model, endpoint.charge) == ("my-deployment", "sum")
    newer = connect({**environ, "OPENAI_API_VERSION": "2025-04-01-preview"}, provider="azure", model="m")
    assert newer.azure_api_version == "2025-04-01-preview"
    v1 = {**environ, "AZURE_OPENAI_ENDPOINT": "https://contoso.openai.azure.com/openai/v1/"}
    assert connect(v1, provider="azure", model="m").azure_api_version is None
    with pytest.raises(UsageError, match="needs --model: the name of your deployment"):
        connect(environ, provider="azure")
    with pytest.raises(UsageError, match="set AZURE_OPENAI_ENDPOINT"):
        connect({"AZURE_OPENAI_API_KEY": "az"}, provider="azure", model="m")
    with pytest.raises(UsageError, match="the deployment as --model"):
        connect(
            environ,
            base_url="https://contoso.openai.azure.com/openai/deployments/gpt/chat/completions",
            model="m",
        )


def test_a_key_file_that_others_may_read_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "my key"
    file.write_text(" sk-file \n")
    for mode in (0o600, 0o400, 0o622):
        file.chmod(mode)
        endpoint = connect(KEY, api_key_file=str(file))
        assert (endpoint.api_key, endpoint.key_source) == ("sk-file", str(file))
        assert caplog.messages == []
    for mode in (0o640, 0o604, 0o444):
        file.chmod(mode)
        assert connect(api_key_file=str(file)).api_key == "sk-file"
        assert caplog.messages == [f"--api-key-file {file}: others may read it; run chmod 600 '{file}'"]
        caplog.clear()


@pytest.mark.parametrize("whose", ["another user's", "a read-only mount's"])
def test_a_key_file_that_its_user_cannot_close_is_taken_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    file = tmp_path / "key"
    file.write_text("sk-file")
    file.chmod(0o444)
    if whose == "another user's":
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    else:
        mounted = os.statvfs(tmp_path)
        read_only = os.statvfs_result((*mounted[:8], mounted.f_flag | os.ST_RDONLY, *mounted[9:]))
        monkeypatch.setattr(os, "fstatvfs", lambda descriptor: read_only)
    assert connect(api_key_file=str(file)).api_key == "sk-file"
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"\xff\xfe", "not text"), (b"sk one", "space, line break")]
)
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(UsageError, match=message) as caught:
        connect(api_key_file=str(file))
    assert "sk" not in str(caught.value).replace(str(file), "")
    with pytest.raises(UsageError, match="No such file"):
        connect(api_key_file=str(tmp_path / "none"))


def test_a_key_that_cannot_be_a_header_is_refused_without_showing_it() -> None:
    with pytest.raises(UsageError, match="the key of OPENAI_API_KEY holds") as caught:
        connect({"OPENAI_API_KEY": "sk-one\nX-Evil: 1"})
    assert "sk-one" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Authorization=Bearer x", "a key comes from the environment"),
        ("api-key=x", "a key comes from the environment .*--provider azure sends it in this header"),
        (
            "X-API-Key=x",
            "--api-key-file, never from here; --provider custom-x-api-key sends it in this header",
        ),
        ("Proxy-Authorization=x", "a key comes from the environment"),
        ("Host=x", "cannot be set"),
        ("Content-Type=x", "cannot be set"),
        ("Bad Name=x", "cannot be set"),
        ("X-A=1\r\nX-B: 2", "line break"),
    ],
)
def test_a_header_that_would_break_or_leak_is_refused(header: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        connect(KEY, header=[header])


def test_headers_of_all_places_are_sent_the_strongest_last() -> None:
    endpoint = connect({**KEY, "BATCHLLM_HEADER": "X-A=env"}, header=["X-A=flag", "X-B=2"])
    assert endpoint.headers == {"X-A": "flag", "X-B": "2"}
    assert "flag" not in repr(endpoint)


def job_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "job.toml"
    path.write_text(f'[job]\ntask = "summarize"\ninput = "rows.csv"\n{text}')
    return str(path)


def test_a_provider_on_the_command_line_leaves_url_key_and_headers_of_the_job_file_behind(
    tmp_path: Path,
) -> None:
    file = job_file(
        tmp_path,
        'provider = "groq"\nbase_url = "https://proxy.example/v1"\nmodel = "llama"\napi_key_file = "none"\n'
        'header = { X-Tenant = "secret" }\n',
    )
    endpoint = assemble("run", {"job_file": file, "provider": "simulator"}, {}).endpoint
    assert (endpoint.preset, endpoint.base_url, endpoint.headers) == ("simulator", "", {})
    assert endpoint.model == "llama"


def test_a_url_on_the_command_line_never_counts_as_the_job_files_simulator(tmp_path: Path) -> None:
    file = job_file(tmp_path, 'provider = "simulator"\n')
    flags = {"job_file": file, "base_url": "https://api.openai.com/v1"}
    assert assemble("run", flags, KEY).endpoint.preset == "openai"
    flags["base_url"] = "https://gateway.example/v1"
    assert assemble("run", flags, KEY).endpoint.preset == "custom"


def test_a_model_comes_from_flag_environment_file_template_sdk_preset_in_this_order(tmp_path: Path) -> None:
    template = tmp_path / "mine.toml"
    template.write_text('[[messages]]\ncontent = "{{ text }}"\n[parameters]\nmodel = "from-template"\n')
    file = tmp_path / "job.toml"
    file.write_text('[job]\ninput = "rows.csv"\ntemplate = "mine.toml"\nmodel = "from-file"\n')
    environ = {**KEY, "OPENAI_MODEL": "from-sdk"}
    job = assemble("run", {"job_file": file, "model": "from-flag"}, {**environ, "BATCHLLM_MODEL": "from-env"})
    assert (job.endpoint.model, job.sources["model"]) == ("from-flag", "--model")
    assert job.template is not None
    assert "model" not in job.template.parameters
    assert assemble("run", {"job_file": file}, {**environ, "BATCHLLM_MODEL": "e"}).endpoint.model == "e"
    assert assemble("run", {"job_file": file}, environ).endpoint.model == "from-file"
    flags = {"template": str(template), "input": "rows.csv"}
    assert assemble("run", flags, environ).endpoint.model == "from-template"
    job = assemble("summarize", {"input": "rows.csv"}, environ)
    assert (job.endpoint.model, job.sources["model"]) == ("from-sdk", "OPENAI_MODEL")


def test_a_model_that_is_rendered_for_each_row_stays_in_the_template(tmp_path: Path) -> None:
    template = tmp_path / "mine.toml"
    template.write_text("[[messages]]\ncontent = '{{ text }}'\n[parameters]\nmodel = '{{ which }}'\n")
    flags = {"template": str(template), "input": "rows.csv"}
    job = assemble("run", flags, KEY)
    assert job.template is not None
    assert job.template.parameters["model"] == "{{ which }}"
    job = assemble("run", {**flags, "model": "fixed"}, KEY)
    assert job.template is not None
    assert ("model" in job.template.parameters, job.endpoint.model) == (False, "fixed")


GATEWAY = "https://gateway.example/v1"


@pytest.mark.parametrize("extra", ["", 'provider = "custom-x-api-key"\n', 'provider = "groq"\n'])
def test_a_url_of_a_job_file_gets_no_key_of_the_environment_without_the_users_word(
    tmp_path: Path, extra: str
) -> None:
    file = tmp_path / "job.toml"
    file.write_text(
        f'[job]\ntask = "summarize"\ninput = "rows.csv"\nmodel = "m"\nbase_url = "{GATEWAY}"\n{extra}'
    )
    keys = {**KEY, "GROQ_API_KEY": "gsk"}
    secret = tmp_path / "key"
    secret.write_text("sk-file")
    secret.chmod(0o600)

    def key(environ: dict[str, str], **flags: Any) -> str | None:
        job = assemble("run", {"job_file": file, **flags}, environ, needs_key=True)
        assert job.endpoint.base_url == GATEWAY
        return job.endpoint.api_key

    for environ in (keys, {**keys, "BATCHLLM_API_KEY_FILE": str(secret)}):
        with pytest.raises(UsageError, match=f"job.toml names the URL {GATEWAY}.*--base-url {GATEWAY}"):
            key(environ)
        unnamed = assemble("run", {"job_file": file}, environ, needs_key=False)
        assert unnamed.endpoint.api_key is None
    own = "gsk" if "groq" in extra else "sk-one"
    assert key(keys, base_url=GATEWAY) == own
    assert key({**keys, "BATCHLLM_BASE_URL": GATEWAY}) == own
    assert key({**keys, "OPENAI_BASE_URL": f"{GATEWAY}/"}) == own
    assert key(keys, api_key_file=str(secret)) == "sk-file"
    with pytest.raises(UsageError, match="no key of the environment"):
        key({**keys, "OPENAI_BASE_URL": "https://other.example/v1"})


def test_a_job_file_may_name_a_key_for_its_url_and_the_vendors_own_url(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-file")
    (tmp_path / "key").chmod(0o600)
    file = tmp_path / "job.toml"
    table = '[job]\ntask = "summarize"\ninput = "rows.csv"\nmodel = "m"\n'
    file.write_text(f'{table}base_url = "{GATEWAY}"\napi_key_file = "key"\n')
    assert assemble("run", {"job_file": file}, KEY, needs_key=True).endpoint.api_key == "sk-file"
    file.write_text(f'{table}base_url = "https://api.groq.com/openai/v1"\n')
    groq = assemble("run", {"job_file": file}, {"GROQ_API_KEY": "gsk"}, needs_key=True)
    assert groq.endpoint.api_key == "gsk"
    file.write_text(f'{table}base_url = "http://localhost:8000/v1"\n')
    assert assemble("run", {"job_file": file}, KEY, needs_key=True).endpoint.api_key is None
