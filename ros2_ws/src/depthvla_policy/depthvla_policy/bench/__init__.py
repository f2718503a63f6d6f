"""Speed, memory and precision of the network on this machine, each beside what the machine could do at most."""

from depthvla_policy.bench.machine import peak_memory_gb

__all__ = ["peak_memory_gb"]
