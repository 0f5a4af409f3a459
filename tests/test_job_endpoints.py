"""Several endpoints of a job: flags, variables and [[endpoints]], whose key goes where, and what cannot be meant."""

from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import UsageError
from batchllm.job import Job, assemble
from batchllm.records import ChatRequest, Row
from batchllm.request.builder import RequestBuilder

KEY = {"OPENAI_API_KEY": "sk-one"}
A, B = "https://a.example/v1", "https://b.example/v1"


def job_of(environ: dict[str, str] | None = None, **flags: Any) -> Job:
    return assemble("summarize", {"input": "rows.csv", **flags}, environ or {})


def of_file(tmp_path: Path, text: str, environ: dict[str, str] | None = None, **flags: Any) -> Job:
    (tmp_path / "job.toml").write_text(f'[job]\ntask = "summarize"\ninput = "rows.csv"\n{text}')
    return assemble("run", {"job_file": str(tmp_path / "job.toml"), **flags}, environ or {})


def test_one_endpoint_is_no_list() -> None:
    assert job_of(KEY).endpoints == ()
    assert job_of(KEY, base_url=[A]).endpoints == ()


def test_a_url_that_is_given_several_times_is_several_endpoints_with_the_users_key() -> None:
    job = job_of(KEY, base_url=[A, B], rpm="500")
    assert [each.endpoint.base_url for each in job.endpoints] == [A, B]
    assert job.endpoint == job.endpoints[0].endpoint
    assert {each.endpoint.api_key for each in job.endpoints} == {"sk-one"}
    assert [each.pace.requests_per_minute for each in job.endpoints] == [500, 500], "it is each one's limit"


def test_the_variable_takes_urls_between_blanks() -> None:
    job = job_of({**KEY, "BATCHLLM_BASE_URL": f"{A} {B}"})
    assert [each.endpoint.base_url for each in job.endpoints] == [A, B]


def test_several_providers_have_their_own_keys_and_the_first_ones_model() -> None:
    job = job_of({**KEY, "GROQ_API_KEY": "gsk"}, provider=["openai", "groq"])
    assert [each.endpoint.api_key for each in job.endpoints] == ["sk-one", "gsk"]
    assert {each.endpoint.model for each in job.endpoints} == {"gpt-4o-mini"}
    with pytest.raises(UsageError, match="set GROQ_API_KEY"):
        job_of(KEY, provider=["openai", "groq"])


def test_one_provider_at_several_urls() -> None:
    job = job_of(provider=["vllm"], base_url=["http://gpu1:8000/v1", "http://gpu2:8000/v1"], model="m")
    assert {each.endpoint.preset for each in job.endpoints} == {"vllm"}
    assert len(job.endpoints) == 2


def test_a_job_file_gives_each_endpoint_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.key").write_text("key-a")
    (tmp_path / "a.key").chmod(0o600)
    job = of_file(
        tmp_path,
        f"""
rpm = 100
header = {{ X-Title = "all" }}

[[endpoints]]
base_url = "{A}"
api_key_file = "a.key"
model = "own-a"
rpm = 600
weight = 2

[[endpoints]]
provider = "vllm"
base_url = "http://localhost:8000/v1"
tpm = 9_000
concurrency = 4
header = {{ X-Own = "b" }}
""",
        model="the-model",
    )
    first, second = job.endpoints
    assert (first.endpoint.api_key, first.pace.requests_per_minute, first.weight) == ("key-a", 600, 2)
    assert first.names == {"the-model": "own-a"}
    assert first.endpoint.headers == {"X-Title": "all"}
    assert (second.endpoint.preset, second.endpoint.api_key, second.names) == ("vllm", None, {})
    assert (second.pace.requests_per_minute, second.pace.tokens_per_minute) == (100, 9000)
    assert second.pace.concurrency == 4
    assert second.endpoint.headers == {"X-Title": "all", "X-Own": "b"}
    assert job.endpoint.model == "the-model"


ENDPOINTS = f'[[endpoints]]\nbase_url = "{A}"\n[[endpoints]]\nbase_url = "{B}"\n'


def test_no_key_of_the_environment_goes_to_a_url_of_a_job_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"names the URL {A}, and no key .* as api_key_file"):
        of_file(tmp_path, ENDPOINTS, KEY)
    with pytest.raises(UsageError, match=f"names the URL {A}"):
        of_file(tmp_path, ENDPOINTS, {**KEY, "BATCHLLM_API_KEY_FILE": str(tmp_path / "x")})


def test_urls_of_the_command_line_replace_those_of_the_file(tmp_path: Path) -> None:
    assert of_file(tmp_path, ENDPOINTS, KEY, base_url=["https://c.example/v1"]).endpoints == ()
    assert of_file(tmp_path, ENDPOINTS, provider=["simulator"]).endpoint.preset == "simulator"
    limited = of_file(
        tmp_path,
        '[[endpoints]]\nprovider = "vllm"\nrpm = 5\n[[endpoints]]\nprovider = "ollama"\n',
        model="m",
        rpm="60",
    )
    assert [each.pace.requests_per_minute for each in limited.endpoints] == [60, 60], (
        "flags go before the file"
    )


def test_the_model_of_the_first_endpoint_is_the_jobs_where_none_is_named(tmp_path: Path) -> None:
    job = of_file(
        tmp_path,
        '[[endpoints]]\nprovider = "vllm"\nmodel = "x"\n[[endpoints]]\nprovider = "ollama"\nmodel = "y"\n',
    )
    assert job.endpoint.model == "x"
    assert [each.names for each in job.endpoints] == [{"x": "x"}, {"x": "y"}]


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ("[[endpoints]]\nrpm = 5\n", {}, "endpoint 1 of .*job.toml has neither base_url nor provider"),
        ('[[endpoints]]\nprovider = "vllm"\nurl = "x"\n', {}, "endpoint 1 of .* has the unknown key url"),
        ('[[endpoints]]\nprovider = "vllm"\nrpm = 0\n', {}, "rpm of endpoint 1 of .*must be a number"),
        ('[[endpoints]]\nprovider = "vllm"\nweight = -1\n', {}, "endpoint 1 of .*: weight must be"),
        ('[[endpoints]]\nprovider = "vllm"\nmodel = 3\n', {}, "endpoint 1 of .*: model must be text"),
        ('[[endpoints]]\nprovider = "no-such"\n', {}, "there is no such preset"),
        ("endpoints = 3\n", {}, "endpoints in .* must be tables"),
        ('base_url = "http://x/v1"\n[[endpoints]]\nprovider = "vllm"\n', {}, "both say where requests go"),
        (
            'api_key_file = "k"\n[[endpoints]]\nprovider = "vllm"\n[[endpoints]]\nprovider = "ollama"\n',
            {},
            "one key for several endpoints",
        ),
        ('[[endpoints]]\nprovider = "vllm"\n[[endpoints]]\nprovider = "vllm"\n', {}, "is given twice"),
        (
            '[[endpoints]]\nprovider = "vllm"\n[[endpoints]]\nprovider = "ollama"\n',
            {"via": "batch"},
            "batch goes to one endpoint, and this job has 2",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    tmp_path: Path, text: str, flags: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        of_file(tmp_path, text, model="m", **flags)


def test_one_key_for_several_providers_is_refused() -> None:
    with pytest.raises(UsageError, match="one key for several providers"):
        job_of(KEY, provider=["openai", "groq"], api_key_file="x")
    with pytest.raises(UsageError, match=r"beside several providers.*\[\[endpoints\]\]"):
        job_of(KEY, provider=["openai", "groq"], base_url=[A])


def test_endpoints_are_no_part_of_what_is_asked(tmp_path: Path) -> None:
    row = Row(0, 1, {"text": "a long text"}, [])

    def key_of(job: Job) -> bytes:
        built = RequestBuilder(job, ("text",), (), None).build(row)
        assert isinstance(built, ChatRequest)
        return built.key

    jobs = [
        job_of(KEY, base_url=urls, model="m", **more)
        for urls, more in (([A], {}), ([A, B], {}), ([B, A], {"rpm": "5"}), ([B], {}))
    ]
    jobs.append(
        of_file(tmp_path, f'[[endpoints]]\nbase_url = "{A}"\nmodel = "own"\napi_key_file = "k"\n', model="m")
        if (tmp_path / "k").write_text("k")
        else jobs[0]
    )
    assert len({key_of(job) for job in jobs}) == 1
    assert all(job.fingerprint() == jobs[0].fingerprint() for job in jobs)


def test_an_endpoints_name_for_a_model_that_the_job_does_not_have_is_refused(tmp_path: Path) -> None:
    def named(names: str, model: str | None = "gpt-4o") -> Job:
        text = f'[[endpoints]]\nbase_url = "{A}"\napi_key_file = "k"\nmodel = {names}\n'
        return of_file(tmp_path, text, model=model)

    (tmp_path / "k").write_text("sk")
    assert named('{ "gpt-4o" = "own" }').endpoints[0].names == {"gpt-4o": "own"}
    with pytest.raises(
        UsageError, match=r"names gpt4-o, which is no model of this job \(did you mean gpt-4o\?\)"
    ):
        named('{ "gpt4-o" = "own" }')


def test_names_for_models_of_steps_and_of_rows_are_taken(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("sk")
    table = f'[[endpoints]]\nbase_url = "{A}"\napi_key_file = "k"\nmodel = {{ "one" = "1", "two" = "2" }}\n'
    head = '[job]\ninput = "rows.csv"\n' + table
    steps = '[[steps]]\nname = "{0}"\nprompt = "{{{{ text }}}}"\nmodel = "{0}"\n'
    path = tmp_path / "job.toml"
    path.write_text(head + steps.format("one") + steps.format("two"))
    assert len(assemble("run", {"job_file": str(path)}, {}).steps) == 2
    path.write_text(head + steps.format("one") + steps.format("too"))
    with pytest.raises(UsageError, match="names two, which is no model of this job"):
        assemble("run", {"job_file": str(path)}, {})
    (tmp_path / "rows.jsonl").write_text("")
    path.write_text(head.replace("rows.csv", "rows.jsonl"))
    assert assemble("run", {"job_file": str(path), "model": "m"}, {}).per_row


def test_a_key_file_of_a_table_is_named_as_in_the_file(tmp_path: Path) -> None:
    table = f'[[endpoints]]\nbase_url = "{A}"\n'
    with pytest.raises(UsageError, match=r"^api_key_file of endpoint 1 of .*job\.toml .*none: No such file"):
        of_file(tmp_path, f'{table}api_key_file = "none"\n', model="m")
    with pytest.raises(UsageError, match=r"^--api-key-file none: No such file"):
        job_of(api_key_file="none")
