"""A person's terminal: lines with what is going on below them, and keys one by one.

What a key means is none of its business. Keys are read here and not by prompt_toolkit: its parser keeps a space back
until a paste ends and takes Alt and a letter for that letter; space must stop at once, and nothing may arm by mistake.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

MARK_PASTED, DO_NOT_MARK_PASTED = "\x1b[?2004h", "\x1b[?2004l"  # pasted text comes between two sequences


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the process."""
        raise BrokenPipeError


class Screen:
    """Lines on standard output, and below them, on a terminal, a few that are rewritten in place. Any thread may."""

    def __init__(self) -> None:
        self._console = _Output(highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._shown = ""
        self._lock = threading.RLock()
        atexit.register(self.show, "")  # the cursor is hidden meanwhile

    @property
    def rewrites(self) -> bool:
        """Whether `show` shows anything."""
        return self._console.is_terminal

    def say(self, text: str, *, bell: bool = False) -> None:
        """With the time of day, for what happens."""
        if bell:
            self._write(self._console.bell)
        self.print(f"{time.strftime('%H:%M:%S')} {text}")

    def print(self, text: str) -> None:
        self._write(lambda: self._console.print(text, soft_wrap=True))

    def show(self, text: str) -> None:
        """What is to stand below the lines from now on; empty: nothing."""
        if self.rewrites and text != self._shown:
            self._write(lambda: self._rewrite(text))

    def _rewrite(self, text: str) -> None:
        self._shown = text
        if not text:
            live, self._live = self._live, None
            live.stop()
            return
        if self._live is None:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        self._live.update(Text(text, no_wrap=True, overflow="crop"), refresh=True)

    def _write(self, write: Callable[[], None]) -> None:
        with self._lock:
            try:
                write()
            except OSError:
                # Whoever read it is gone; the joystick still has to work, and what is left in the buffer must not turn
                # the end of the process into a failure.
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), sys.stdout.fileno())


class Terminal:
    """Standard input key by key, read on a thread of its own. Closed by its owner, or when the process ends.

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
        atexit.register(self.close)

    def close(self) -> None:
        atexit.unregister(self.close)
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
