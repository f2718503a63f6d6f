"""What figures were measured on, and the memory of this process."""

from __future__ import annotations

import datetime
import os
import resource
from pathlib import Path

import torch


def circumstances(device: str, threads: int) -> dict:
    """Date, git revision and machine, for a file of figures."""
    # Loaded here: this module is also that of programs without bags.
    from depthvla_evaluation.bags.recording import describe_machine, git_revision

    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "revision": git_revision(Path(__file__).parent),
        "machine": {
            **gpu,
            **describe_machine(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": threads,
            "torch": torch.__version__,
        },
    }


def load_average() -> float:
    """Of the last minute [processes]: before a measurement that of what runs beside it, after it with itself."""
    return round(os.getloadavg()[0], 2)


def peak_memory_gb(device: str) -> float:
    """Most device memory that tensors took, or on a CPU the peak resident size of this process, mapped files too."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def unmapped_memory_gb() -> float:
    """Resident size of this process without mapped files: a copy of the weights in memory shows here (proc(5))."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("RssAnon:") + 1]) * 1024 / 1e9
