"""What may be chosen of the chunk executor, with what is allowed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from depthvla_control.chunk import GROSS_MM, GROSS_RAD
from depthvla_control.timeline import STRATEGIES

TAKE_OVERS = ("ramp", "reanchor")


@dataclass(frozen=True)
class ExecutorConfig:
    """What may be chosen. Lengths of time in s; the defaults are those of the node's parameters."""

    strategy: str = "blend"  # how chunks are joined: see `timeline`
    blend_s: float = 0.1  # from the old motion to the new one
    ensemble_decay_per_s: float = 5.0  # how fast an observation loses weight with its age
    position_margin_rad: float = 0.01  # kept from every arm joint's position limits
    speed_scale: float = 1.0  # of the velocity limits
    catch_up_scale: float = 0.25  # of them, beyond a new source's own speed, until it is caught up with
    max_gap_rad: float = 0.6  # no change of command when an arm joint is further from where it is wanted
    take_over: str = "ramp"  # "ramp": go to the leader's pose; "reanchor": follow its way from here
    velocity_headroom: float = 3.0  # the tracker's speed cap over the commanded speed
    max_feedback_age_s: float = 0.2  # older feedback of a limb holds the arms
    feedback_lost_s: float = 0.5  # still older, the arms may be anywhere: no stream, and a person decides what goes on
    max_leader_age_s: float = 0.2
    max_future_s: float = 0.05  # how far a stamp may be ahead of this clock
    gross_rad: float = GROSS_RAD  # a chunk that is further outside the limits than this latches a fault
    gross_mm: float = GROSS_MM
    max_feedback_jump_rad: float = 0.15  # beyond what the tracker can move; a larger one latches a fault
    max_tracking_error_rad: float = 0.5  # an arm that is further from its command for `tracking_s` latches a fault
    tracking_s: float = 0.5

    def __post_init__(self) -> None:
        for name, allowed in (("strategy", STRATEGIES), ("take_over", TAKE_OVERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not (np.isfinite(value) and value >= 0.0):
                raise ValueError(f"{item.name} is {value!r}; it must be a number, 0 or more")
        for name in ("speed_scale", "catch_up_scale"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: above 0, up to 1")
        if self.feedback_lost_s < self.max_feedback_age_s:
            raise ValueError(
                f"feedback_lost_s is {self.feedback_lost_s}; allowed: {self.max_feedback_age_s} (max_feedback_age_s) or"
                " more"
            )
