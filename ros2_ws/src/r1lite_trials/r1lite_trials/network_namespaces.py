"""Two network namespaces, robot and host, and the process that holds them and the link between them. Linux, as root.

Each has one network device: two ends of a cable with netem on them, or TAP devices whose frames the process carries.
Namespaces and devices have no names outside the process and end with it, and it ends with whoever started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from r1lite_trials.network_emulation import Conditions, Link, Netem, kernel_has_netem
from r1lite_trials.stream import percentiles

SIDES = ("robot", "host")
ADDRESSES = {"robot": "10.42.0.1", "host": "10.42.0.2"}
DEVICE = "cable"
CLONE_NEWNET = 0x40000000  # linux/sched.h
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h
# As docs/network.md sets them on both computers; these two are a namespace's own.
FRAGMENTS = {"ipfrag_high_thresh": 134217728, "ipfrag_time": 3}
PRIORITY = 20  # SCHED_FIFO: a frame must not wait for an inference
IDLE_S = 1.0
END_S = 10.0


class LinkError(RuntimeError):
    """There can be no namespaces or no link here; the message says why."""


def unavailable() -> str:
    """Why there can be no link here; empty when there can."""
    if not sys.platform.startswith("linux"):
        return f"network namespaces need Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"TAP devices need /dev/net/tun: {error.strerror}"
    return ""


class SplitNetwork:
    """The two namespaces while the context lasts. On leaving, what still runs in them is killed.

    Args:
        seed: of the link.
        tuned: set FRAGMENTS in both namespaces, instead of leaving the kernel's defaults.

    Raises LinkError on entering.
    """

    def __init__(self, seed: int = 0, *, tuned: bool = True) -> None:
        self._seed, self._tuned = seed, tuned
        self._refused = 0

    def __enter__(self) -> SplitNetwork:
        if reason := unavailable():
            raise LinkError(reason)
        with contextlib.ExitStack() as stack:
            words = [sys.executable, "-m", __name__, str(self._seed), str(int(self._tuned))]
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            stack.callback(self._end)
            ready = self._process.stdout.readline()
            if not ready:
                raise LinkError("the link's process did not start; its reason is above")
            self._namespaces = {side: os.open(path, os.O_RDONLY) for side, path in json.loads(ready).items()}
            for namespace in self._namespaces.values():
                stack.callback(os.close, namespace)
            self._left = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    @contextlib.contextmanager
    def inside(self, side: str) -> Iterator[None]:
        """Sockets, threads and processes that the calling thread makes meanwhile are in that side's namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _set_namespace(self._namespaces[side])
            yield
        finally:
            _set_namespace(before)
            os.close(before)

    def set(self, conditions: Conditions) -> dict:
        """From now on. Returns what became of frames since the last call, see `report`."""
        try:
            self._process.stdin.write(json.dumps(dataclasses.asdict(conditions)) + "\n")
            self._process.stdin.flush()
            figures = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            raise LinkError("the link's process has ended") from None
        before, self._refused = self._refused, sum(map(self._refused_by, SIDES))
        figures["overflowed"] += self._refused - before
        return figures

    def _refused_by(self, side: str) -> int:
        """Frames that the device of that side dropped, because the link did not read them in time."""
        with self.inside(side):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        counters = next(line for line in lines if line.strip().startswith(f"{DEVICE}:")).split(":")[1].split()
        return int(counters[11])  # proc(5): dropped while transmitting

    def _end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def main(seed: int, tuned: bool) -> None:
    """A line with the namespaces' files, then conditions in and reports out, a line each, until the input ends."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    netem, taps, namespaces = kernel_has_netem(), [], {}
    for side in SIDES:
        _check(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET))
        namespaces[side] = os.open("/proc/self/ns/net", os.O_RDONLY)
        if not netem:
            taps.append(_tap())
    files = {side: f"/proc/{os.getpid()}/fd/{namespace}" for side, namespace in namespaces.items()}
    if netem:
        _ip(f"link add {DEVICE} type veth peer name {DEVICE} netns {files[SIDES[0]]}")
    for side, namespace in namespaces.items():
        _set_namespace(namespace)
        _bring_up(ADDRESSES[side], tuned)
    link = Netem(DEVICE, list(files.values())) if netem else Link(tuple(taps), seed)
    print(json.dumps(files), flush=True)
    control = sys.stdin.fileno()
    try:
        while True:
            if not link.step(IDLE_S, control):
                continue
            line = sys.stdin.readline()
            if not line:
                break
            link.change(Conditions(**json.loads(line)))
            print(json.dumps(report(link)), flush=True)
            link.forget()
    finally:
        _kill_inhabitants({os.fstat(namespace).st_ino for namespace in namespaces.values()})


def report(link: Link | Netem) -> dict:
    """Frames carried, lost on purpose and lost for want of time, and how late they left beyond their delay [ms], where
    that is known.
    """
    late = percentiles(np.array(link.late_ns) * 1e-6, 50, 99, digits=3)
    seconds = round((time.monotonic_ns() - link.since_ns) * 1e-9, 2)
    counts = {"carried": link.carried, "lost": link.lost, "overflowed": link.overflowed}
    return {"seconds": seconds, **counts, "late_ms": late}


def _tap() -> int:
    """A TAP device in this namespace; it ends with its file descriptor."""
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def _bring_up(address: str, tuned: bool) -> None:
    """The device of this namespace."""
    for words in (f"address add {address}/24 dev {DEVICE}", f"link set {DEVICE} up", "link set lo up"):
        _ip(words)
    for name, value in FRAGMENTS.items() if tuned else ():
        Path("/proc/sys/net/ipv4", name).write_text(str(value))


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def _set_namespace(namespace: int) -> None:
    _check(ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET))


def _check(result: int) -> None:
    if result:
        raise LinkError(f"no network namespace: {os.strerror(ctypes.get_errno())}")


def _kill_inhabitants(namespaces: set[int]) -> None:
    """Processes in these namespaces, except this one and the one that started it."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            inside = os.stat(entry / "ns/net").st_ino in namespaces
            if inside and int(entry.name) not in (os.getpid(), os.getppid()):
                os.kill(int(entry.name), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), bool(int(sys.argv[2])))
