"""The claim of the command that runs a job: of several on any machines, one at a time has a work folder.

A claim is created as that of a shard is. Whether its command lives is seen from its state, which changes every two
seconds while it does: no two clocks are compared.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

from batchllm.cluster.work import PLAN, WorkFolder, run_name, stop_name
from batchllm.errors import JobError, NotNow

BEAT_S = 2.0
"""How often the state is written, and looked for a newer claim."""
DEAD_S = 10.0
"""A command whose state has not changed for so long is dead, or cut off."""
LOOK_S = 0.2


class DriverClaim:
    """Holds a work folder inside the ``with`` block.

    Args:
        work: The work folder.
        run: The name of the run.
        wait_s: How long to wait while another command has it.
        check: Called while it waits; raises to give up.

    Attributes:
        failure: Why this command has the folder no more: a newer claim, or the folder cannot be written.
    """

    def __init__(self, work: WorkFolder, run: str, *, wait_s: float, check: Callable[[], None]) -> None:
        self._work = work
        self._run = run
        self._wait_s = wait_s
        self._check = check
        self._whose = {"run": run, "node": platform.node(), "pid": os.getpid(), "time": time.time()}
        self._number = 0
        self._beats = 0
        self._put_at = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="driver-claim", daemon=True)
        self.failure: JobError | None = None

    def __enter__(self) -> "DriverClaim":
        """Claims the folder.

        Raises:
            NotNow: Another command has it after ``wait_s``.
            JobError: The folder cannot be read or written.
        """
        last = self._claim()
        if last:
            self._work.newest().create(stop_name(last["run"]), b"stop")  # its workers may live
        self._put(ended=False)
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(JobError):  # without it the next command waits until this one counts as dead
            if kind is None or not self._leaves_nothing():
                self._put(ended=True)

    def _leaves_nothing(self) -> bool:
        """Removes the only claim of a folder in which no job has begun; returns whether it could.

        A claim that was written so lately counts for no other command as dead, so that none has made a later one.
        """
        is_sure = self.failure is None and time.monotonic() - self._put_at < DEAD_S / 2
        if self._number > 1 or not is_sure or self._work.has(PLAN):
            return False
        for name in (run_name(self._run), _state_name(1), _claim_name(1)):
            self._work.remove(name)
        return True

    def _claim(self) -> dict[str, Any] | None:
        """Claims the folder; returns the claim before if its command has not ended in order."""
        gives_up_at = time.monotonic() + self._wait_s
        seen: tuple[int, dict[str, Any] | None] | None = None
        since = 0.0
        number = 0
        while True:
            self._check()
            first = 1 if number < 2 else number + 1  # the first claim may be gone again
            number = next(each for each in count(first) if not self._work.has(_claim_name(each))) - 1
            state = self._work.get_json(_state_name(number), "ended") if number else None
            has_ended = number == 0 or (state is not None and state["ended"])
            now = time.monotonic()
            if (number, state) != seen:
                lives = seen is not None and not has_ended
                if lives and now >= gives_up_at:
                    raise NotNow(self._busy(number))
                seen, since = (number, state), now
            if has_ended or now - since >= DEAD_S:
                if self._work.create(_claim_name(number + 1), json.dumps(self._whose).encode()):
                    self._number = number + 1
                    return None if has_ended else self._claimed(number)
            else:
                time.sleep(LOOK_S)

    def _beat(self) -> None:
        try:
            while not self._ended.wait(BEAT_S):
                if self._work.has(_claim_name(self._number + 1)):
                    self.failure = NotNow(self._busy(self._number + 1))
                    return
                self._put(ended=False)
        except JobError as error:
            self.failure = error

    def _put(self, *, ended: bool) -> None:
        self._beats += 1
        state = {"beats": self._beats, "time": time.time(), "ended": ended}
        self._work.put_json(_state_name(self._number), state)
        self._put_at = time.monotonic()

    def _claimed(self, number: int) -> dict[str, Any]:
        claimed: dict[str, Any] | None = self._work.get_json(_claim_name(number))
        return claimed or {}

    def _busy(self, number: int) -> str:
        whose = self._claimed(number)
        return (
            f"{self._work}: another command (pid {whose.get('pid')} on {whose.get('node')}) runs this job; wait for it "
            "(--wait-lock SECONDS), or try again later"
        )


def _claim_name(number: int) -> str:
    return f"driver/claim-{number:04}"


def _state_name(number: int) -> str:
    return f"driver/state-{number:04}"
