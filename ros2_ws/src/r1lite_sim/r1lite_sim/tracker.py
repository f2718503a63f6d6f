"""What the robot's joint and gripper trackers make of commands; numpy only.

A command sets a target and a speed cap per joint. The reference moves towards the target no faster than the cap, and
only while commands keep coming: when the stream stops, so does the motion.
"""

from __future__ import annotations

import numpy as np


class Tracker:
    """References of a group of joints that are commanded by one stream.

    Args:
        default_cap: (joints,) speed cap per second for commands that carry none.
        timeout_s: a stream is alive for this long after its last command.
    """

    def __init__(self, default_cap: np.ndarray, timeout_s: float) -> None:
        self._default_cap = np.asarray(default_cap, dtype=float)
        self._timeout_s = timeout_s
        self.reset(np.zeros_like(self._default_cap))

    def reset(self, position: np.ndarray) -> None:
        """Hold `position`, with no command."""
        self.reference = np.array(position, dtype=float)
        self._target = self.reference.copy()
        self._cap = self._default_cap
        self._last_command_s = -np.inf

    def command(self, target: np.ndarray, cap: np.ndarray | None, now_s: float) -> None:
        self._target = np.array(target, dtype=float)
        self._cap = self._default_cap if cap is None else np.array(cap, dtype=float)
        self._last_command_s = now_s

    def step(self, now_s: float, duration_s: float) -> np.ndarray:
        """Move the reference on by `duration_s` and return it."""
        if now_s - self._last_command_s < self._timeout_s:
            reach = self._cap * duration_s
            self.reference += np.clip(self._target - self.reference, -reach, reach)
        return self.reference
