"""What figures and recordings were made on: processor, system, git revision, memory. Needs no torch by itself."""

from __future__ import annotations

import datetime
import os
import platform
import resource
import subprocess
from pathlib import Path


def describe_machine() -> dict[str, str | int | float]:
    """Processor, cores of this process, memory, system and Python."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(models, platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def machine() -> str:
    """Processor, cores, kernel and Python, in words."""
    about = describe_machine()
    release = f"{platform.system()} {platform.release()}"
    return f"{about['processor']}, {about['cores']} cores, {release}, Python {about['python']}"


def git_revision(folder: Path) -> str:
    """Commit of the checkout that has files in `folder`, with `+dirty` where files differ from it; empty without one.
    A build in a workspace that is itself a checkout is none of that checkout's.
    """

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10.0, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", ".")
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def circumstances(device: str, threads: int) -> dict:
    """Date, git revision and machine, for a file of figures."""
    import torch

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
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def unmapped_memory_gb() -> float:
    """Resident size of this process without mapped files: a copy of the weights in memory shows here (proc(5))."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("RssAnon:") + 1]) * 1024 / 1e9
