"""Real nodes as processes, for tests over real DDS; the probe that watches them is in `nodes.common.probe`.

Import it only where rclpy is installed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depthvla_control.ros.probe import TIMEOUT_S, Heard, Probe, private_domain, wait_until

__all__ = ["Heard", "NodeProcess", "Probe", "private_domain", "wait_until"]

SOURCES = Path(__file__).resolve().parents[2]
# Every package and what its tests share, whether or not a workspace is sourced.
SOURCE_PATHS = [str(path.parent / part) for path in sorted(SOURCES.glob("*/setup.py")) for part in (".", "test")]


class NodeProcess:
    """A node in a process of its own, run from the source tree; ended when the context is left."""

    def __init__(
        self,
        module: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        remappings: Mapping[str, str] | None = None,
        params_file: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        arguments = ["--ros-args"]
        if params_file:
            arguments += ["--params-file", str(params_file)]
        for name, value in (parameters or {}).items():
            arguments += ["-p", f"{name}:={_yaml(value)}"]
        for name, target in (remappings or {}).items():
            arguments += ["-r", f"{name}:={target}"]
        paths = [*SOURCE_PATHS]
        paths += [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=self._log, stderr=subprocess.STDOUT, env=env
        )

    def output(self) -> str:
        """Everything the process has written so far."""
        self._log.seek(0)
        return self._log.read()

    def wait_for_output(self, text: str, timeout_s: float = TIMEOUT_S) -> None:
        wait_until(lambda: text in self.output(), timeout_s, lambda: f"{text!r} in the output:\n{self.output()}")

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """The exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s; its output:\n{self.output()}") from None

    def stop(self, number: int = signal.SIGINT) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._log.close()


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    return str(value)
