"""What a checkpoint is for: a simulated robot, a real one, or both, as its demonstrations were. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

SIMULATION, REAL = "simulation", "real"


def why_not_real(config: Path) -> str:
    """Why no real robot is given the checkpoint of a config.json; empty where it may be.

    One that does not say what it is for is from before it was said, or was never trained on demonstrations of a robot.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        policy = json.loads(config.read_text()).get("policy", {})
        made_for = tuple(policy.get("made_for", ()))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{config} cannot be read: {error}") from None
    if REAL in made_for:
        return ""
    if made_for:
        return f"{config} says that it is made for {', '.join(map(str, made_for))} only"
    return (
        f"{config} does not say what it is made for; where it was trained on demonstrations of this robot, add"
        f' "made_for": ["{REAL}"] to its "policy"'
    )
