"""Holds the oracle's ledger, the journal and the output against the invariants of the first promise.

I1 saved first · I2 durable before counted · I3 intent before send · I4 right row · I5 one winner · I6 bounded double
pay · I7 the money adds up · I8 a re-run does nothing · I9 all or nothing output · I10 one run.

It reads the journal with plain SQL and the output with plain csv: nothing of the product is asked whether the
product is right. Each violation is a sentence that begins with the invariant's name.
"""

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.durability.scenario import Scenario, read_csv

ANSWERED, FAILED = 1, 2


@dataclass
class Facts:
    """What a journal says, read by itself.

    Attributes:
        sent: How many attempts each request key has, by attempts that were meant to be sent.
        answers: Attempt to the id of the answer it brought.
        owner: Attempt to its request.
        maybe: Attempts that are recorded as possibly billed without an answer.
        unreplied: Attempts without any reply.
        tokens: The sum of the usage of all answers.
        sound: What SQLite itself thinks of the file.
    """

    sent: Counter[str] = field(default_factory=Counter)
    answers: dict[int, str] = field(default_factory=dict)
    owner: dict[int, int] = field(default_factory=dict)
    maybe: set[int] = field(default_factory=set)
    unreplied: set[int] = field(default_factory=set)
    tokens: int = 0
    sound: str = "ok"


@contextmanager
def recovered(journal: Path) -> Iterator[sqlite3.Connection]:
    """The journal as SQLite recovers it, in a copy, so that looking changes nothing."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "journal"
        shutil.copyfile(journal, copy)
        log = Path(f"{journal}-wal")
        if log.exists():
            shutil.copyfile(log, f"{copy}-wal")
        with closing(sqlite3.connect(copy)) as connection:
            yield connection


def facts_of(journal: Path) -> Facts:
    """Reads a journal; an absent one has no facts."""
    facts = Facts()
    if not journal.exists():
        return facts
    with recovered(journal) as connection:
        (facts.sound,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        rows = connection.execute(
            "SELECT attempt.attempt_id, request.request_id, hex(request.key), sent_at IS NOT NULL,"
            " reply.attempt_id IS NOT NULL, reply.status, reply.possibly_billed, reply.body FROM attempt"
            " JOIN request USING (request_id) LEFT JOIN reply USING (attempt_id)"
        )
        for attempt, request, key, sent, replied, status, possibly_billed, body in rows:
            facts.sent[key.lower()] += sent
            facts.owner[attempt] = request
            if not replied:
                facts.unreplied.add(attempt)
            if possibly_billed:
                facts.maybe.add(attempt)
            if status == 200:
                answer = json.loads(body)
                facts.answers[attempt] = answer["id"]
                facts.tokens += answer["usage"]["total_tokens"]
        # An answer whose attempt the journal does not have is found by the reply alone.
        lost = connection.execute(
            "SELECT attempt_id, body FROM reply WHERE status = 200"
            " AND attempt_id NOT IN (SELECT attempt_id FROM attempt)"
        )
        for attempt, body in lost:
            facts.answers.setdefault(attempt, json.loads(body)["id"])
    return facts


def check_crash(scenario: Scenario, *, concurrency: int) -> list[str]:
    """What must hold at the instant a run died, before anything recovers it."""
    try:
        facts = facts_of(scenario.journal)
    except sqlite3.Error as error:
        return [f"I2: SQLite cannot read the journal: {error}"]
    found = [] if facts.sound == "ok" else [f"I2: SQLite finds the journal damaged: {facts.sound}"]
    notes = scenario.notes()
    asked = Counter(note["key"] for note in notes if note["event"] == "request")
    for key, count in asked.items():
        if count > facts.sent[key]:
            found.append(f"I3: request {key} left {count} times, the journal knows of {facts.sent[key]}")
    for note in notes:
        if note["event"] == "acknowledged" and facts.answers.get(note["attempt"]) != note["id"]:
            found.append(f"I1: the answer to attempt {note['attempt']} was acknowledged and is gone")
    if len(facts.unreplied) > concurrency:
        found.append(f"I6: {len(facts.unreplied)} attempts without a reply at {concurrency} in flight")
    ended = next((note for note in reversed(notes) if note["event"] == "ended"), None)
    if scenario.output.exists() and scenario.output.stat().st_size:
        found += [problem.replace("I4", "I9", 1) for problem in check_output(scenario)]
    elif scenario.output.exists():
        found.append("I9: the output is an empty file")
    elif ended and ended["status"] in (0, 1):
        found.append("I2: the run said that it was done, and there is no output")
    return found


def check_output(scenario: Scenario) -> list[str]:
    """Every row of the output is its own row of the input with its own answer, each answer used once."""
    try:
        header, *written = read_csv(scenario.output)
    except Exception as error:  # noqa: BLE001 - whatever is there is not a complete output
        return [f"I9: the output cannot be read: {error!r}"]
    rows = scenario.rows()
    if len(written) != len(rows):
        return [f"I9: the output has {len(written)} rows, the input {len(rows)}"]
    of_id = {note["id"]: note["text"] for note in scenario.notes() if note["event"] == "request"}
    found: list[str] = []
    used: Counter[str] = Counter()
    for number, (row, out) in enumerate(zip(rows, written, strict=True)):
        cells = dict(zip(header, out, strict=True))
        text, answer, identity = row[1], cells["response"], cells["response_id"]
        if out[: len(row)] != row:
            found.append(f"I4: the cells of row {number} changed")
        if identity:
            used[identity] += 1
            if of_id.get(identity) != text:
                found.append(f"I4: row {number} has the answer to {of_id.get(identity)!r}")
        if text and not set(text.split()) & {"bad", "filtered"}:
            if answer != f"echo of {text}" or cells["error"]:
                found.append(f"I4: row {number} has {answer!r}, error {cells['error']!r}")
        elif text and not cells["error"]:
            found.append(f"I4: row {number} failed and has no error")
    found += [f"I5: answer {identity} is on {count} rows" for identity, count in used.items() if count > 1]
    return found


def check_finished(scenario: Scenario, *, most_maybe: int) -> list[str]:
    """What must hold once a clean run has ended the job.

    Args:
        scenario: The job.
        most_maybe: How many attempts may have been paid without an answer: what was in flight at the kills,
            and what was lost on the way.
    """
    facts = facts_of(scenario.journal)
    found = [] if facts.sound == "ok" else [f"I2: SQLite finds the journal damaged: {facts.sound}"]
    found += check_output(scenario)
    notes = scenario.notes()
    requests = [note for note in notes if note["event"] == "request"]
    asked = Counter(note["key"] for note in requests)
    found += [
        f"I3: request {key} left {count} times, the journal knows of {facts.sent[key]}"
        for key, count in asked.items()
        if count > facts.sent[key]
    ]
    kept = Counter(facts.answers.values())
    for note in notes:
        if note["event"] == "acknowledged" and note["id"] not in kept:
            found.append(f"I1: answer {note['id']} was acknowledged and is gone")
    found += [f"I5: answer {identity} is kept {count} times" for identity, count in kept.items() if count > 1]
    answered = Counter(facts.owner.get(attempt) for attempt in facts.answers)
    found += [
        f"I6: request {request} was paid {count} times" for request, count in answered.items() if count > 1
    ]
    paid = {note["id"] for note in requests if note["paid"]}
    if strange := set(kept) - paid:
        found.append(f"I7: the journal has answers that the server did not give: {sorted(strange)}")
    lost = len(paid - set(kept))
    if lost > len(facts.maybe):
        found.append(f"I6: {lost} answers were paid and lost, the journal admits {len(facts.maybe)}")
    if len(facts.maybe) > most_maybe:
        found.append(f"I6: {len(facts.maybe)} attempts possibly billed, {most_maybe} were in flight")
    if facts.unreplied:
        found.append(f"I7: {len(facts.unreplied)} attempts have no end")
    if not (facts.tokens <= 10 * len(paid) <= facts.tokens + 10 * len(facts.maybe)):
        found.append(f"I7: {10 * len(paid)} tokens paid, {facts.tokens} in the journal")
    return found


def check_rerun(scenario: Scenario, before: bytes, asked_before: int) -> list[str]:
    """A finished job run again: nothing was asked, the same bytes."""
    asked = sum(note["event"] == "request" for note in scenario.notes())
    found = [f"I8: the re-run sent {asked - asked_before} requests"] if asked != asked_before else []
    if scenario.output.read_bytes() != before:
        found.append("I8: the re-run changed the output")
    return found
