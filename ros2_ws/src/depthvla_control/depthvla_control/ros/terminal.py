"""A person's terminal: lines with what is going on below them, and keys one by one.

What a key means is none of its business.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator

CLEAR, UP = "\r\x1b[K", "\x1b[1A"
MARK_PASTED, DO_NOT_MARK_PASTED = "\x1b[?2004h", "\x1b[?2004l"  # pasted text comes between two sequences


class Screen:
    """Lines on standard output, and below them, on a terminal, a few that are rewritten in place."""

    def __init__(self) -> None:
        self._fixed = sys.stdout.isatty()
        self._shown = ""
        self._lock = threading.Lock()  # several threads have something to say

    def say(self, text: str) -> None:
        """With the time of day, for what happens."""
        self.print(f"{time.strftime('%H:%M:%S')} {text}")

    def print(self, text: str) -> None:
        with self._lock:
            erasing = self._erasing() if self._shown else ""
            self._write(f"{erasing}{text}\n{self._shown}")

    def show(self, text: str) -> None:
        if not self._fixed:
            return
        columns = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be rewritten
        text = "\n".join(line[:columns] for line in text.split("\n"))
        with self._lock:
            if text != self._shown:
                erasing, self._shown = self._erasing(), text
                self._write(erasing + text)

    def _erasing(self) -> str:
        return CLEAR + (UP + CLEAR) * self._shown.count("\n")

    @staticmethod
    def _write(text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:
            # Whoever read it is gone; the joystick still has to work, and what is left in the buffer must not turn the
            # end of the process into a failure.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())


class Terminal:
    """Standard input key by key, read on a thread of its own. The owner must close it.

    Args:
        typed: called from the thread with what was typed, and with "" when no more will come: the terminal is gone, or
            the thread failed.

    Raises:
        OSError, termios.error: this is no terminal.
    """

    def __init__(self, typed: Callable[[str], None]) -> None:
        self._typed = typed
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        self._woken, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run, name="keyboard", daemon=True)
        self._key_by_key()
        self._tell(MARK_PASTED)
        self._on_continue = signal.signal(signal.SIGCONT, self._continue)
        self._thread.start()

    def close(self) -> None:
        signal.signal(signal.SIGCONT, self._on_continue)
        os.close(self._wake)
        self._thread.join()
        os.close(self._woken)
        self._tell(DO_NOT_MARK_PASTED)
        with contextlib.suppress(termios.error):  # a terminal that is gone needs nothing
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)

    def _key_by_key(self) -> None:
        attributes = termios.tcgetattr(self._fd)
        # Flow control is off: Ctrl-S would block the output, and with it the whole node.
        attributes[0] &= ~termios.IXON
        attributes[3] &= ~(termios.ICANON | termios.ECHO)
        attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, attributes)

    def _continue(self, number: int, frame: object) -> None:
        # A shell puts its own settings back when the process was stopped with Ctrl-Z. A hang-up also continues it.
        with contextlib.suppress(termios.error):
            self._key_by_key()

    def _tell(self, sequence: str) -> None:
        if sys.stdout.isatty():
            with contextlib.suppress(OSError):
                os.write(sys.stdout.fileno(), sequence.encode())

    def _run(self) -> None:
        try:
            self._read()
        except BaseException:
            self._typed("")
            raise

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._woken], [], [])
            if self._woken in ready:
                return
            try:
                data = os.read(self._fd, 1024)
            except OSError:
                data = b""
            self._typed(data.decode(errors="replace"))
            if not data:
                return


def open_terminal(typed: Callable[[str], None]) -> tuple[Terminal | None, str]:
    """The terminal of standard input, or why there is none to use."""
    refusal = terminal_refusal()
    return (None, refusal) if refusal else (Terminal(typed), "")


def terminal_refusal() -> str:
    """Why there is no terminal to use; empty where there is one."""
    if not sys.stdin or not sys.stdin.isatty():
        return "standard input is no terminal"
    with contextlib.suppress(OSError):  # there is no job control
        if os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
            return "this runs in the background of its terminal"
    return ""


@contextlib.contextmanager
def terminal_restored() -> Iterator[None]:
    """Puts the terminal's settings back, however the body ends."""
    try:
        before = termios.tcgetattr(0)
    except termios.error:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, before)
