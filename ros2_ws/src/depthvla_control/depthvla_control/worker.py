"""A thread that works for somebody who has to notice when it no longer does."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator


class Worker:
    """Runs `work` on a daemon thread. Whatever ends it by an exception is kept, not lost.

    Args:
        name: of the thread, for `problem`.
        hang_s: a piece of work, marked by `busy`, that takes longer is a hang.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        hang_s: float = math.inf,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._work, self._hang_s, self._steady_s = name, work, hang_s, steady_s
        self._error, self.traceback = "", ""  # of what ended it
        self._busy_since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Whether it has ended, or was never started."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Around a piece of work; waiting for the next one is no work."""
        self._busy_since_s = self._steady_s()
        try:
            yield
        finally:
            self._busy_since_s = None

    def beat(self) -> None:
        """A sign of life, for work that is never done. From the first one on, the next is waited for."""
        self._busy_since_s = self._steady_s()

    @property
    def problem(self) -> str:
        """Why it does not work; empty while it does."""
        if self._error:
            return f"the {self._name} thread died: {self._error}"
        since_s = self._busy_since_s  # once, since the thread sets it
        for_s = self._steady_s() - since_s if since_s is not None else 0.0
        return f"the {self._name} thread hangs: no sign of life for {for_s:.1f} s" if for_s > self._hang_s else ""

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # SystemExit would end a thread without a word
            self._error, self.traceback = f"{type(error).__name__}: {error}", traceback.format_exc()
        finally:
            self._busy_since_s = None
