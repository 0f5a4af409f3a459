"""Asks about the parts of a long text, side by side.

What tokens and contexts decide is kept in the journal: where a text is cut, how much room its combining requests have,
and which answers go together (``combining``). So neither a new version of a library nor a new price list changes what
has begun.
"""

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from batchllm import splitting
from batchllm.errors import UsageError
from batchllm.flows.asking import first_of_several, reasking, together, values_of, whole
from batchllm.flows.combining import Combining, raise_failed
from batchllm.flows.flow import Ask, Flow, Kept, RequestFailed, Step, sendable
from batchllm.flows.merging import encoded
from batchllm.flows.part_columns import with_parts
from batchllm.flows.stand_in import begun, longest, missing
from batchllm.job import Job
from batchllm.job.split import SMALLEST_PART
from batchllm.records import Answer, Row
from batchllm.request import RequestBuilder
from batchllm.request.combination import Combination
from batchllm.request.long_text import UNLIMITED, LongText, is_too_long
from batchllm.splitting import Span

_SLOW = 50_000  # characters that take some hundredths of a second
_MOST_CUTS = 8  # refusals that say no limit halve a text: enough for one of 256 times the limit
_LATEST = 1024  # texts whose cuts are remembered: those that an estimate has looked at


class Cuts(NamedTuple):
    """Where a text is cut.

    Attributes:
        spans: Its parts; none for a text that is asked about whole.
        room: The tokens of answers that a combining request has room for.
    """

    spans: tuple[Span, ...]
    room: int

    @classmethod
    def of(cls, kept: bytes) -> "Cuts":
        """Restores what the journal keeps."""
        found = json.loads(kept)
        return cls(tuple(Span(*each) for each in found["spans"]), found["room"])


class _Piece(NamedTuple):
    span: Span
    path: str
    text: str


class Splitting:
    """The flow of a job with ``--on-long split``.

    Args:
        job: The job.
        builder: Makes the requests of texts that fit.

    Raises:
        UsageError: The prompt reads no text, or the combining prompt cannot be used.
    """

    def __init__(self, job: Job, builder: RequestBuilder) -> None:
        if not builder.reads_text:
            raise UsageError("--on-long split cuts {{ text }}, and the prompt does not read it; leave it out")
        splitting.check_library()
        self._job = job
        self._whole = builder
        self._parts = builder.unlimited(windows=False)
        self._long = LongText(job, builder.unlimited())
        self._combination = Combination(job, builder)
        self._combining = Combining(job, self._combination, self._long)
        self._reasks = job.reasks if self._combination.spec.read == "json" else 0
        self._read = self._whole.used_columns | self._combination.used_columns
        self._known: dict[bytes, bytes] = {}

    def start(self, row: Row) -> Flow:
        """Begins the flow of a row."""
        text = self._whole.text_of(row)
        if text is None or not text.strip() or not self._long.may_exceed(text):
            cuts, values = Cuts((), UNLIMITED), b""
        else:
            values = values_of(row, self._read)
            cuts = Cuts.of((yield self._cuts(row, text, values)))
        if not cuts.spans or text is None:
            asks = [whole(self._whole, row)]
            pieces = [_Piece(Span(0, 0), "", text or "")]
        else:
            pieces = _pieces(cuts.spans, text, "part")
            built = sendable(self._parts.build(self._parts.with_text(row, pieces[0].text)))
            first = first_of_several(pieces[0].path, built, values, self._parts.reader(row))
            asks = [first, *(self._part(row, piece) for piece in pieces[1:])]
        answers, room = yield from self._answered(row, pieces, asks)
        if len(answers) == 1:
            return with_parts(self._job, answers[0], answers[0].columns, answers)
        return (yield from self._combining.combined(row, answers, min(cuts.room, room)))

    def slow(self, row: Row) -> Generator[Kept, bytes, None]:
        """Yields the cuts of a row whose text is long; see ``JobFlow.slow``."""
        text = self._whole.text_of(row)
        if text is not None and len(text) >= _SLOW:
            yield self._cuts(row, text, values_of(row, self._read), self._cutting(row, text))

    def longest(self, rows: Iterable[Row]) -> int:
        """Returns the most requests that a row sends one after the other, by the row with the longest text."""
        row = max(rows, key=lambda row: len(self._whole.text_of(row) or ""), default=None)
        if row is None:
            return 1
        flow = begun(self.start(row))
        for _ in missing(flow, longest(lambda bound: bound or 0)):
            pass
        return max(1, flow.steps)

    def _answered(
        self, row: Row, pieces: Sequence[_Piece], asks: Sequence[Ask]
    ) -> Generator[Step, Any, tuple[list[Answer], int]]:
        """Asks about pieces; cuts those smaller and smaller that the endpoint finds too long.

        Returns:
            The answers, and the room that combining requests have by what the endpoint said.
        """
        every = [*zip(pieces, (yield from together([self._asked(ask) for ask in asks])), strict=True)]
        room = UNLIMITED
        for _ in range(_MOST_CUTS):
            finer: list[list[_Piece]] = []
            for piece, result in every:
                finer.append([])
                if isinstance(result, RequestFailed) and is_too_long(result.answer) and piece.text:
                    cuts = Cuts.of((yield self._finer(row, piece.text, result.answer.error or "")))
                    if len(cuts.spans) > 1:
                        finer[-1] = _pieces(cuts.spans, piece.text, piece.path or "part")
                        room = min(room, cuts.room)
            if not any(finer):
                break
            again = [self._asked(self._part(row, piece)) for group in finer for piece in group]
            more = iter((yield from together(again)))
            every = [
                each
                for known, group in zip(every, finer, strict=True)
                for each in ([(piece, next(more)) for piece in group] or [known])
            ]
        several = len(every) > 1
        results = [result for _, result in every]
        raise_failed(
            results,
            [f"part {number} of {len(every)}" if several else "" for number in range(1, len(every) + 1)],
        )
        return [answer for answer in results if isinstance(answer, Answer)], room

    def _asked(self, ask: Ask) -> Flow:
        return reasking(self._parts, ask, self._reasks)

    def _part(self, row: Row, piece: _Piece) -> Ask:
        """Returns a later request, which follows from the first one and its own text."""
        identity = sha256(piece.text.encode("utf-8", "surrogatepass")).digest()
        reader = self._parts.reader(row)
        return Ask(
            piece.path, identity, reader, lambda: self._parts.build(self._parts.with_text(row, piece.text))
        )

    def _cuts(self, row: Row, text: str, values: bytes, compute: Callable[[], bytes] | None = None) -> Kept:
        settings = encoded([self._job.max_input_tokens, self._job.overlap])
        subject = sha256(settings + b"\0" + values).digest()
        return self._remembering("cuts", subject, compute or (lambda: self._cutting(row, text)()))

    def _cutting(self, row: Row, text: str) -> Callable[[], bytes]:
        """Returns what decides whether a text is cut, and where: all that takes long, and needs no builder."""
        room = self._long.room(row)
        combining = self._combining.room(row)(room.part)

        def compute() -> bytes:
            if room.part < SMALLEST_PART or not self._long.exceeds(text, room.whole):
                return _kept((), combining)
            return self._cut(text, room.part, combining)

        return compute

    def _finer(self, row: Row, part: str, error: str) -> Kept:
        """Cuts a part that the endpoint finds too long, by what it says."""
        room_after, combining = self._long.room_after(row, error), self._combining.room(row)

        def compute() -> bytes:
            room = room_after(part)
            return self._cut(part, room, combining(room))

        subject = sha256(encoded([self._job.overlap, part]) + values_of(row, self._read)).digest()
        return self._remembering("finer cuts", subject, compute)

    def _cut(self, text: str, room: int, combining: int) -> bytes:
        spans = splitting.split(text, room, self._long.count, min(self._job.overlap, room // 2))
        return _kept(spans, combining)

    def _remembering(self, name: str, subject: bytes, compute: Callable[[], bytes]) -> Kept:
        """Returns a kept value that is computed once in this process: an estimate and the run ask for the same."""
        known = self._known

        def remembered() -> bytes:
            if subject not in known:
                if len(known) >= _LATEST:
                    del known[next(iter(known))]
                known[subject] = compute()
            return known[subject]

        return Kept(name, subject, remembered)


def _kept(spans: Sequence[Span], room: int) -> bytes:
    return encoded({"spans": spans, "room": room})


def _pieces(spans: Sequence[Span], text: str, path: str) -> list[_Piece]:
    """Returns the parts of a text; those that are blank are left out, since there is nothing to ask about."""
    texts = [(span, text[span.begin : span.end]) for span in spans]
    filled = [(span, part) for span, part in texts if not part.isspace()]
    return [_Piece(span, f"{path}/{number}", part) for number, (span, part) in enumerate(filled, 1)]
