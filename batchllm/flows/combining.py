"""Combines the answers about the parts of a text: without a request where they agree, else in levels of requests."""

import json
from collections.abc import Callable, Generator, Sequence
from hashlib import sha256
from typing import Any

from batchllm.flows.asking import reasking, together
from batchllm.flows.flow import Ask, Flow, Kept, RequestFailed, Step, sendable
from batchllm.flows.merging import (
    Group,
    Item,
    candidates,
    encoded,
    groups_of,
    item_of,
    parts_text,
    settled,
    voted,
    written,
)
from batchllm.flows.part_columns import with_parts
from batchllm.flows.stand_in import STAND_IN
from batchllm.job import Job
from batchllm.job.split import SMALLEST_PART, VOTE
from batchllm.records import Answer, Row
from batchllm.request.combination import Combination
from batchllm.request.long_text import LongText, is_too_long

Result = Answer | RequestFailed


class Combining:
    """Combines the answers about the parts of a row's text.

    Each level asks about groups of answers that fit into a request together, and has at most half as many answers as
    the level before it, so it comes to an end. Where the endpoint finds a request too long, groups get smaller
    until they are as small as parts may be.

    Args:
        job: The job.
        combination: Makes and reads the requests.
        long: Counts tokens.
    """

    def __init__(self, job: Job, combination: Combination, long: LongText) -> None:
        self._job = job
        self._combination = combination
        self._count = long.count
        self._reasks = job.reasks if combination.spec.read == "json" else 0
        self._measured = LongText(job, combination.of(combination.columns)[0])

    def room(self, row: Row) -> Callable[[int], int]:
        """Returns how many tokens of answers a combining request of a row has room for.

        Returns:
            That room, by the tokens of a part, which are the limit where nothing else is known.
        """
        room = self._measured.room(self._combination.row(row, "")).part
        known = self._job.max_input_tokens is not None or self._measured.has_window(
            self._combination.row(row, "")
        )
        return lambda most: max(SMALLEST_PART, room if known else min(room, most))

    def combined(self, row: Row, answers: Sequence[Answer], room: int) -> Flow:
        """Combines the answers about the parts into the row's answer.

        Args:
            row: The row.
            answers: The answers, in the order of the parts.
            room: The tokens of answers that a request has room for.
        """
        combination, total = self._combination, len(answers)
        if self._job.combine == VOTE:
            return self._by_vote(answers)
        items = [item_of(number, number, answer) for number, answer in enumerate(answers)]
        columns, values = combination.columns, dict[str, Any]()
        last, level = answers[0], 0
        while True:
            found, columns = settled(items, columns, combination)
            values |= found
            if not columns:
                break
            level += 1
            items = candidates(items, columns, combination.spec)
            groups: list[Group] = json.loads((yield self._groups(items, total, room)))
            results = yield from self._level(row, columns, level, items, groups, total, room)
            if any(map(_is_refused, results)) and room > SMALLEST_PART:
                room = max(SMALLEST_PART, min(room, sum(self._count(item.text) for item in items)) // 2)
                results = [None if _is_refused(result) else result for result in results]
            raise_failed(results, [_names(group, items, total) for group in groups])
            following: list[Item] = []
            for group, result in zip(groups, results, strict=True):
                members = [items[number] for number, _ in group]
                if isinstance(result, Answer):
                    last = result
                    following.append(item_of(members[0].first, members[-1].last, result))
                else:
                    following += members
            items = following
        if level == 0:
            last = last._replace(confidence=None)
        ordered = {name: values[name] for name in combination.columns if name in values}
        return with_parts(self._job, last, ordered, answers)

    def _level(
        self,
        row: Row,
        columns: Sequence[str],
        level: int,
        items: Sequence[Item],
        groups: Sequence[Group],
        total: int,
        room: int,
    ) -> Generator[Step, Any, list[Result | None]]:
        """Asks about the groups of a level; returns a result for each, ``None`` for a group of one."""
        builder, reader = self._combination.of(columns)
        flows = []
        for number, group in enumerate(groups, 1):
            if len(group) == 1:
                continue
            built = sendable(self._combination.build(columns, row, written(group, items, total, room)))
            ask = Ask(f"combine/{level}/{number}", built.key, reader, built)
            flows.append(reasking(builder, ask, self._reasks))
        given = iter((yield from together(flows)) if flows else ())
        return [next(given) if len(group) > 1 else None for group in groups]

    def _by_vote(self, answers: Sequence[Answer]) -> Answer:
        last = answers[-1]._replace(confidence=None)
        if last.response_id == STAND_IN:
            return last
        label, labels = voted(answers, self._combination.spec)
        columns = {self._combination.spec.column: label}
        return with_parts(self._job, last._replace(text=label, labels=labels), columns, answers)

    def _groups(self, items: Sequence[Item], total: int, room: int) -> Kept:
        known = json.dumps([total, room, [[item.first, item.last, item.text] for item in items]])
        return Kept(
            "groups",
            sha256(known.encode()).digest(),
            lambda: encoded(groups_of(items, total, room, self._count)),
        )


def raise_failed(results: Sequence[Result | None], names: Sequence[str]) -> None:
    """Raises the first failure, which says the name of its request.

    Args:
        results: The results of requests that went out together.
        names: What they are called; an empty one is left out.

    Raises:
        RequestFailed: A request failed.
    """
    failed = [
        (result, name)
        for result, name in zip(results, names, strict=True)
        if isinstance(result, RequestFailed)
    ]
    if not failed:
        return
    result, name = failed[0]
    answer = result.answer
    if name:
        answer = answer._replace(error=f"{name}: {answer.error}")
    given_up = any(each.given_up for each, _ in failed)
    raise RequestFailed(result.answers, "", answer, given_up=given_up)


def _is_refused(result: Result | None) -> bool:
    return isinstance(result, RequestFailed) and is_too_long(result.answer)


def _names(group: Group, items: Sequence[Item], total: int) -> str:
    first, last = items[group[0][0]].first, items[group[-1][0]].last
    return f"combining {parts_text(first, last, total).lower()}"
