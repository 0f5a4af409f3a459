"""Whole runs over several endpoints on real sockets: none is lost, order is kept, and each endpoint is its own."""

import csv
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from batchllm.counters import EndpointFigures
from batchllm.errors import BudgetStop
from batchllm.job import assemble
from batchllm.runner import Result, run_job
from batchllm.simulator import SimulatorSettings, start_in_thread
from tests.command import Command
from tests.raw_server import RawServer

Settings = SimulatorSettings


def rows_file(folder: Path, rows: int) -> Path:
    path = folder / "rows.csv"
    path.write_text("text\n" + "".join(f"row {n}\n" for n in range(rows)))
    return path


@contextmanager
def simulators(*settings: SimulatorSettings) -> Iterator[list[Any]]:
    with ExitStack() as stack:
        yield [stack.enter_context(start_in_thread(each)) for each in settings]


def run(source: Path, urls: Sequence[str], **options: Any) -> Result:
    flags = {
        "input": str(source),
        "prompt": "Say {{ text }}",
        "model": "m",
        "base_url": list(urls),
        **options,
    }
    return run_job(assemble("run", flags, {"OPENAI_API_KEY": "sk-good"}))


def answers(result: Result) -> list[dict[str, str]]:
    assert result.output is not None
    with result.output.open(newline="") as file:
        return list(csv.DictReader(file))


def in_order(result: Result, rows: int) -> bool:
    found = answers(result)
    return [row["text"] for row in found] == [f"row {n}" for n in range(rows)] and all(
        f"Say row {n}" in row["response"] and not row["error"] for n, row in enumerate(found)
    )


def by_url(result: Result) -> dict[str, Any]:
    return {each.endpoint: each for each in result.summary.endpoints}


HOSTILE = {
    "refuses everything": Settings(error_rate={"429": 1.0}),
    "has another key": Settings(api_key="sk-other"),
    "lacks the model": Settings(models=("another",)),
    "rejects everything": Settings(error_rate={"400": 1.0}),
    "fails at random": Settings(error_rate={"500": 0.3, "503": 0.2}),
    "closes connections": Settings(error_rate={"reset": 0.05}),
    "is slow": Settings(latency_s=1.0),
}


def test_a_hostile_mix_costs_no_row_its_answer_and_no_row_its_place(tmp_path: Path) -> None:
    with simulators(Settings(latency_s=0.01), *HOSTILE.values()) as servers:
        result = run(rows_file(tmp_path, 400), [server.base_url for server in servers], add=["endpoint"])
        urls = dict(zip(["good", *HOSTILE], [server.base_url for server in servers], strict=True))
    assert result.exit_status == 0
    assert in_order(result, 400)
    figures = by_url(result)
    assert figures[urls["has another key"]].state == "out"
    assert "401" in figures[urls["has another key"]].why
    for kind in ("refuses everything", "has another key", "lacks the model", "rejects everything"):
        assert figures[urls[kind]].answers == 0, kind
    from_where = Counter(row["endpoint"] for row in answers(result))
    assert from_where == {url: each.answers for url, each in figures.items() if each.answers}
    assert sum(each.attempts for each in figures.values()) == result.summary.attempts


def test_a_wrong_key_everywhere_is_wrong_use_and_nothing_is_paid(
    tmp_path: Path, batchllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with simulators(Settings(api_key="sk-a"), Settings(api_key="sk-b")) as servers:
        urls = [word for server in servers for word in ("--base-url", server.base_url)]
        said = batchllm("run", "-p", "{{ text }}", rows_file(tmp_path, 20), "-m", "m", *urls)
    assert said.status == 2
    assert "is left out" in said.err
    last = said.err.splitlines()[-1]
    assert last.count("answered 401") == 2
    assert all(f"{server.base_url}: the endpoint answered 401" in last for server in servers)


def test_a_model_that_no_endpoint_has_is_said_with_each_endpoint(tmp_path: Path, batchllm: Command) -> None:
    with simulators(Settings(models=("a",)), Settings(models=("b",))) as servers:
        urls = [word for server in servers for word in ("--base-url", server.base_url)]
        said = batchllm("run", "-p", "{{ text }}", rows_file(tmp_path, 20), "-m", "m", *urls)
    assert said.status == 2
    assert all(f"{server.base_url}: " in said.err.splitlines()[-1] for server in servers)


def test_only_an_endpoint_that_has_answered_is_said_to_work() -> None:
    def words(attempts: int, answers: int, failures: int) -> str:
        found = EndpointFigures(
            endpoint="u", state="works", attempts=attempts, answers=answers, failures=failures
        )
        return found.to_text()

    assert words(2, 1, 1) == "u: works, 1 answered, 0 refused, 1 failed"
    assert words(1, 0, 1) == "u: no answer yet, 0 answered, 0 refused, 1 failed"
    assert words(0, 0, 0) == "u: not asked, 0 answered, 0 refused, 0 failed"


def test_a_retry_is_sent_to_another_endpoint(tmp_path: Path) -> None:
    """One endpoint fails every third request: those rows are answered by the other, in one try more."""
    count = 0

    def answer(body: dict[str, Any]) -> web.Response:
        nonlocal count
        count += 1
        if count % 3 == 0:
            return web.json_response({"error": {"message": "no"}}, status=500)
        text = body["messages"][-1]["content"]
        return web.json_response({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})

    with RawServer(answer) as flaky, simulators(Settings()) as (good,):
        result = run(rows_file(tmp_path, 120), [flaky.base_url, good.base_url], add=["endpoint"])
        flaky_url, good_url = flaky.base_url, good.base_url
    again = [row for row in answers(result) if int(row["attempts"]) > 1]
    assert again
    assert {row["endpoint"] for row in again} == {good_url}
    assert by_url(result)[flaky_url].failures == len(again)


def empty(body: dict[str, Any]) -> web.Response:
    return web.json_response({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]})


def test_an_endpoint_that_answers_at_once_and_nothing_of_use_gets_few_rows(tmp_path: Path) -> None:
    with RawServer(empty) as trap, simulators(Settings(latency_s=0.1)) as (good,):
        result = run(rows_file(tmp_path, 300), [trap.base_url, good.base_url])
        trap_url, good_url = trap.base_url, good.base_url
    figures = by_url(result)
    assert figures[trap_url].state == "out"
    assert "of no use" in figures[trap_url].why
    assert figures[good_url].answers > 240
    assert result.summary.failed == figures[trap_url].answers


def test_where_every_endpoint_answers_nothing_of_use_the_job_stops_early(tmp_path: Path) -> None:
    with RawServer(empty) as one, RawServer(empty) as other, pytest.raises(BudgetStop, match="is usable"):
        run(rows_file(tmp_path, 300), [one.base_url, other.base_url])


def test_another_set_of_endpoints_goes_on_with_a_killed_run_and_sends_nothing_again(tmp_path: Path) -> None:
    source = rows_file(tmp_path, 150)
    with simulators(*[Settings(latency_s=0.02)] * 4) as servers:
        urls = [server.base_url for server in servers]
        with pytest.raises(Exception, match="--max-requests"):
            run(source, urls[:2], max_requests=60)
        assert sum(server.ledger.answered for server in servers) == 60
        second = run(source, urls[:0:-1])
        assert second.summary.answered_before == 60
        assert sum(server.ledger.answered for server in servers) == 150
        assert in_order(second, 150)
        for other in ([urls[0]], [urls[2], urls[0]], urls):
            again = run(source, other)
            assert again.summary.attempts == 0
        assert sum(server.ledger.answered for server in servers) == 150


def test_each_endpoint_is_asked_for_the_model_by_its_own_name_and_with_its_own_key(tmp_path: Path) -> None:
    seen: dict[str, list[tuple[str, str]]] = {"a": [], "b": []}

    class Server(RawServer):
        name: str

        async def _chat(self, request: web.Request) -> web.Response:
            body = await request.json()
            seen[self.name].append((body["model"], request.headers.get("Authorization", "")))
            return web.json_response({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]})

    (tmp_path / "b.key").write_text("key-b\n")
    (tmp_path / "b.key").chmod(0o600)
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "messages": [{"role": "user", "content": f"{n}"}],
                    **({"model": "own"} if n % 4 == 0 else {}),
                }
            )
            + "\n"
            for n in range(40)
        )
    )
    with Server(lambda body: web.Response()) as a, Server(lambda body: web.Response()) as b:
        a.name, b.name = "a", "b"
        (tmp_path / "job.toml").write_text(
            f'[job]\ninput = "rows.jsonl"\nmodel = "the-model"\n[[endpoints]]\nbase_url = "{a.base_url}"\n'
            f'[[endpoints]]\nbase_url = "{b.base_url}"\nmodel = "name-at-b"\napi_key_file = "b.key"\n'
        )
        result = run_job(
            assemble("run", {"job_file": str(tmp_path / "job.toml")}, {"OPENAI_API_KEY": "sk-env"})
        )
    assert result.summary.answered == 40
    assert {model for model, _ in seen["a"]} <= {"the-model", "own"}
    assert {model for model, _ in seen["b"]} <= {"name-at-b", "own"}
    assert {key for _, key in seen["a"]} == {""}, "a URL of a job file gets no key of the environment"
    assert {key for _, key in seen["b"]} == {"Bearer key-b"}
    assert sum(model == "own" for model, _ in [*seen["a"], *seen["b"]]) == 10


@pytest.mark.proof
def test_an_endpoint_that_dies_and_returns_is_used_again(tmp_path: Path) -> None:
    dead = threading.Event()
    count = Counter[str]()

    def answer(body: dict[str, Any]) -> web.Response:
        text = body["messages"][-1]["content"]
        count["all"] += 1
        if count["all"] == 30:
            dead.set()
            threading.Timer(1.0, dead.clear).start()
        if dead.is_set():
            return web.json_response({"error": {"message": "down"}}, status=502)
        count["back"] += count["all"] > 60
        return web.json_response(
            {"choices": [{"message": {"content": f"Say {text}"}, "finish_reason": "stop"}]}
        )

    with RawServer(answer) as mortal, simulators(Settings()) as (good,):
        result = run(rows_file(tmp_path, 700), [mortal.base_url, good.base_url], rpm=6_000)
    assert in_order(result, 700)
    assert count["back"] > 50


def test_status_and_summary_show_each_endpoint(tmp_path: Path, batchllm: Command) -> None:
    with simulators(Settings(), Settings()) as servers:
        urls = [word for server in servers for word in ("--base-url", server.base_url)]
        source, output = rows_file(tmp_path, 60), tmp_path / "out.csv"
        said = batchllm(
            "run",
            "-p",
            "{{ text }}",
            source,
            "-o",
            output,
            "-m",
            "m",
            *urls,
            "--rpm",
            60_000,
            "--summary",
            tmp_path / "s.json",
        )
        names = [server.base_url for server in servers]
    assert said.status == 0, said.err
    assert f"2 endpoints: {names[0]} (60,000 RPM); {names[1]} (60,000 RPM)" in said.err
    assert all(f"{name}: works, " in said.err for name in names)
    figures = json.loads((tmp_path / "s.json").read_text())["endpoints"]
    assert [each["endpoint"] for each in figures] == names
    assert sum(each["answers"] for each in figures) == 60
    status = batchllm("status", output)
    assert all(f"{name}: works, " in status.out.split("the last run:")[1] for name in names)
    assert json.loads(batchllm("status", output, "--json").out)["endpoints"] == figures


def test_the_column_endpoint_is_there_for_one_endpoint_too(tmp_path: Path) -> None:
    with simulators(Settings()) as (one,):
        result = run(rows_file(tmp_path, 5), [one.base_url], add=["endpoint"])
        assert {row["endpoint"] for row in answers(result)} == {one.base_url}


def test_several_simulators_rehearse_several_providers(tmp_path: Path) -> None:
    job = assemble(
        "run",
        {
            "input": str(rows_file(tmp_path, 30)),
            "prompt": "{{ text }}",
            "provider": ["simulator", "simulator"],
            "add": ["endpoint"],
        },
        {},
    )
    result = run_job(job)
    assert result.summary.answered == 30
    assert {each.endpoint for each in result.summary.endpoints} == {"simulator", "simulator #2"}


def test_providers_can_be_reordered_and_removed_without_asking_again(tmp_path: Path) -> None:
    """Their presets differ, and the first one is part of what a request is known by."""
    source = rows_file(tmp_path, 30)

    def with_endpoints(*lines: str) -> Result:
        (tmp_path / "job.toml").write_text(
            f'[job]\ninput = "{source}"\nprompt = "Say {{{{ text }}}}"\noutput = "out.csv"\n'
            + "".join(f"[[endpoints]]\n{line}\n" for line in lines)
        )
        return run_job(assemble("run", {"job_file": str(tmp_path / "job.toml")}, {}))

    with simulators(*[Settings(keep_requests=99)] * 3) as servers:
        one, two, three = (
            f'provider = "{preset}"\nbase_url = "{server.base_url}"\nmodel = "name-at-{preset}"'
            for preset, server in zip(("vllm", "ollama", "lmstudio"), servers, strict=True)
        )
        first = with_endpoints(one, two)
        assert first.summary.attempts == 30
        for others in ((two, one), (two,), (three, two), (three,), (one,)):
            assert with_endpoints(*others).summary.attempts == 0, others
        source.write_text(source.read_text() + "row 30\n")
        last = with_endpoints(three, two)
        assert (last.summary.attempts, last.summary.answered) == (1, 31)
        asked = {json.loads(each.body)["model"] for server in servers for each in server.received}
        assert asked <= {"name-at-vllm", "name-at-ollama", "name-at-lmstudio"}
    with pytest.raises(Exception, match="--provider changed"):
        with_endpoints('provider = "llama.cpp"\nmodel = "name-at-vllm"')


def test_check_looks_at_each_endpoint(tmp_path: Path, batchllm: Command) -> None:
    with simulators(Settings(keep_requests=9), Settings(api_key="sk-other", keep_requests=9)) as servers:
        one, two = (server.base_url for server in servers)
        (tmp_path / "job.toml").write_text(
            f'[job]\ninput = "{rows_file(tmp_path, 3)}"\nprompt = "{{{{ text }}}}"\nmodel = "m"\n'
            f'[[endpoints]]\nprovider = "vllm"\nbase_url = "{one}"\nmodel = "own"\n'
            f'[[endpoints]]\nprovider = "vllm"\nbase_url = "{two}"\n'
        )
        said = batchllm("check", tmp_path / "job.toml")
        assert [json.loads(each.body)["model"] for each in servers[0].received if each.body] == ["own"]
    assert said.status == 2
    assert said.out.count("endpoint    vllm at http") == 2
    assert f"vllm at {one}" in said.out
    assert "401" in said.out
