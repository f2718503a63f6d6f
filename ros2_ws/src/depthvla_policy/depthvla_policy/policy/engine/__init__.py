"""The inference engine: a network as programs of fixed shapes."""

from depthvla_policy.policy.engine.engine import Engine

__all__ = ["Engine"]
