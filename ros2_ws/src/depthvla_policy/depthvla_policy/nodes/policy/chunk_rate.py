"""How often chunks are made where nobody says: by the device that the network runs on."""

from __future__ import annotations

# Every fourth head image: so the policies are evaluated (--execute 4), and two cores do no more beside the rest.
CPU_HZ = 3.75
# Every second: a chunk of the full network takes 0.02 to 0.08 s there, and the blend of 0.1 s is over before the next.
GPU_HZ = 7.5


def chunk_rate_hz(asked_hz: float, device: str) -> float:
    """asked_hz: 0 where nobody says. device: cpu, cuda or cuda:N."""
    return asked_hz or (GPU_HZ if device.startswith("cuda") else CPU_HZ)
