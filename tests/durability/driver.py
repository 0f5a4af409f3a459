"""The real runner, journal, source and sink with a client that lives in the same process; one fork a run.

Started as ``python -m tests.durability.driver FD``, with one end of a socket as ``FD``. Every order that arrives
there is carried out by a fork, so that a run costs no start of Python; what a fork says, and how it ended, goes
back. Under ``strace`` the forks are what faults are injected into.

strace counts the calls of each thread apart and fires at the call whose number it was started with. To aim at
the k-th call, the thread that is meant first makes calls that do nothing (``Aim.spare``), so that its k-th real call
has that number. What the oracle notes goes out by ``writev``, which nothing is injected into; what a killed
process wrote is in the kernel's hands and survives it.

The controls (``tests.durability.controls``) patch this process, never the product.
"""

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from batchllm.errors import JobError
from batchllm.job import Job, assemble
from batchllm.journal import Journal
from batchllm.journal.writer import Done
from batchllm.records import ChatRequest, Failure, FailureKind, Paid, Response
from batchllm.retry import policy
from batchllm.runner import run_job
from tests.durability import controls

PROMPT = "Echo: {{ text }}"
COULD_NOT_TELL = 99  # the fork's own exit status for what is no error of a job: a bug

SPARE: dict[str, Callable[[int], object]] = {
    "pwrite64": lambda null: os.pwrite(null, b"", 0),
    "write": lambda null: os.write(null, b""),
    "fdatasync": os.fdatasync,
    "fsync": os.fsync,
    "ftruncate": lambda null: os.ftruncate(null, 0),
    "rename": lambda null: os.rename("/nowhere/a", "/nowhere/b"),
    "unlink": lambda null: os.unlink("/nowhere/a"),
}
"""A call of each kind that does nothing, or fails."""


class Notes:
    """The oracle's ledger: what was asked, and what the journal said it had made durable."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, **note: Any) -> None:
        os.writev(self._descriptor, [orjson.dumps(note) + b"\n"])


class EchoClient:
    """Answers each request with its own text; a word in the text asks for another disposition."""

    def __init__(self, notes: Notes, ids: dict[int, str]) -> None:
        self._notes = notes
        self._ids = ids
        self._seen: Counter[str] = Counter()
        self._number = 0

    async def send(self, request: ChatRequest) -> Response | Failure:
        text = orjson.loads(request.body)["messages"][-1]["content"].removeprefix("Echo: ")
        self._seen[text] += 1
        self._number += 1
        again = self._seen[text] > 1
        identity = f"chatcmpl-{secrets.token_hex(8)}"
        paid = "bad" not in text and ("busy" not in text or again)
        self._notes.add(event="request", key=request.key.hex(), text=text, id=identity, paid=paid)
        await asyncio.sleep(self._number % 5 * 0.0007)
        if "bad" in text:
            return status(400, "the model will not have this")
        if "busy" in text and not again:
            return status(503, "busy")
        if "lost" in text and not again:
            return Failure(FailureKind.RESET, "the connection broke", Paid.MAYBE, 0.001)
        outcome = answer(identity, text)
        self._ids[id(outcome)] = identity
        return outcome


def answer(identity: str, text: str) -> Response:
    finish = "content_filter" if "filtered" in text else "stop"
    body = {
        "id": identity,
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {
                    "role": "assistant",
                    "content": None if "filtered" in text else f"echo of {text}",
                },
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return Response(200, {"content-type": "application/json"}, orjson.dumps(body), 0.001)


def status(code: int, message: str) -> Response:
    body = {"error": {"message": message, "type": "invalid_request_error", "code": None, "param": None}}
    return Response(code, {"content-type": "application/json"}, orjson.dumps(body), 0.001)


def note_what_is_acknowledged(notes: Notes, ids: dict[int, str]) -> None:
    """Every answer that the journal reports as durable is noted before the runner hears of it."""
    save = Journal.save

    def noted(
        self: Journal,
        attempt_id: int,
        outcome: Response | Failure,
        saved: Done,
    ) -> None:
        identity = ids.pop(id(outcome), None)

        def note(result: None, error: Exception | None) -> None:
            if identity is not None and error is None:
                notes.add(event="acknowledged", attempt=attempt_id, id=identity)
            saved(result, error)

        save(self, attempt_id, outcome, note)

    Journal.save = noted  # type: ignore[method-assign]


def aim(syscall: str, lane: str, spare: int) -> None:
    """Makes calls that do nothing in the thread that is meant, before it does anything else."""
    null = os.open("/dev/null", os.O_WRONLY)

    def waste() -> None:
        for _ in range(spare):
            try:
                SPARE[syscall](null)
            except OSError:
                pass

    if lane == "main":
        waste()
        return
    run = threading.Thread.run

    def aimed(self: threading.Thread) -> None:
        if self.name == lane:
            waste()
        run(self)

    threading.Thread.run = aimed  # type: ignore[method-assign]


def job_in(folder: Path, **flags: Any) -> Job:
    """The job of a folder."""
    usual = {
        "prompt": PROMPT,
        "input": str(folder / "input.csv"),
        "output": str(folder / "output.csv"),
        "base_url": "http://127.0.0.1:9/v1",
        "model": "echo",
        "concurrency": 6,
        "add": "response_id",
        "allow_failed": "50%",
    }
    return assemble("run", usual | flags, {})


def warm_up() -> None:
    """One run here fills every cache and loads every module once, instead of in every fork."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "input.csv").write_text("text\none\n")
        run_job(job_in(folder), client=EchoClient(Notes(folder / "ledger.jsonl"), {}))


def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    """One run; what it ended with."""
    folder = Path(order["folder"])
    notes = Notes(folder / "ledger.jsonl")
    ids: dict[int, str] = {}
    note_what_is_acknowledged(notes, ids)
    policy.FIRST_BACKOFF_S = 0.002
    if order.get("control"):
        controls.CONTROLS[order["control"]]()
    if order.get("checkpoint_pages"):
        controls.checkpoint_every(order["checkpoint_pages"])
    if order.get("clock"):
        controls.clock_that(order["clock"])
    job = job_in(folder, **order.get("flags", {}))
    if order.get("aim"):
        aim(*order["aim"])
    try:
        result = run_job(job, client=EchoClient(notes, ids))
    except JobError as error:
        notes.add(event="ended", status=int(error.exit_status))
        return {"status": int(error.exit_status), "message": str(error)}
    notes.add(event="ended", status=result.exit_status)
    return {
        "status": result.exit_status,
        "attempts": result.summary.attempts,
        "possibly_billed_twice": result.summary.possibly_billed_twice,
        "possibly_billed_rows": list(result.possibly_billed_rows),
    }


def fork_for(order: dict[str, Any], channel: socket.socket) -> dict[str, Any]:
    """Carries out an order in a fork and tells how the fork ended."""
    child = os.fork()
    if child == 0:
        code = COULD_NOT_TELL
        try:
            outcome = carry_out(order)
            code = outcome["status"]
            channel.send(json.dumps(outcome).encode())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other side shall see it
            channel.send(json.dumps({"status": COULD_NOT_TELL, "message": repr(error)}).encode())
        finally:
            os._exit(code)
    _, waited = os.waitpid(child, 0)
    return {"ended": os.waitstatus_to_exitcode(waited)}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm_up()
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        channel.send(b"{}")
        while order := channel.recv(1 << 20):
            channel.send(json.dumps(fork_for(json.loads(order), channel)).encode())


if __name__ == "__main__":
    main()
