"""Judges the computer on which the policy will run: network settings, disk, clock, ROS environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r1lite_bringup.preflight.findings import Check, Finding

RECEIVE_BUFFERS = ("net.core.rmem_max", "net.core.rmem_default")
RECEIVE_BUFFER = 16 * 2**20  # three compressed cameras at 60 Hz overflow the usual 208 KiB
FRAGMENTS = FRAGMENT_MEMORY, FRAGMENT_TIME = ("net.ipv4.ipfrag_high_thresh", "net.ipv4.ipfrag_time")
ENOUGH_MEMORY = 128 * 2**20
SHORT_TIME_S = 3
# As the kernel names their processes, with 15 letters at most.
CLOCK_KEEPERS = ("chronyd", "ntpd", "systemd-timesyn", "ptp4l", "phc2sys")
COMFORTABLE_MB = 20_000  # some ten minutes of three cameras, at least
MIDDLEWARE = "rmw_fastrtps_cpp"
SIMULATED = "no network is between this machine and its simulation"


@dataclass(frozen=True)
class Host:
    """What this computer says about itself. `kernel`: setting -> value, as in sysctl(8); what this kernel does not
    have is left out.
    """

    kernel: Mapping[str, int]
    free_bytes: int
    bags: Path
    environment: Mapping[str, str]
    middleware: str
    python: tuple[int, int]
    clock_keepers: tuple[str, ...]


def look(bags: Path, middleware: str) -> Host:
    folder = bags.expanduser().absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    processes = {_read(file) for file in Path("/proc").glob("[0-9]*/comm")}
    settings = {name: _read(Path("/proc/sys", name.replace(".", "/"))) for name in (*RECEIVE_BUFFERS, *FRAGMENTS)}
    return Host(
        kernel={name: int(value) for name, value in settings.items() if value.isdecimal()},
        free_bytes=shutil.disk_usage(there).free,
        bags=bags,
        environment=dict(os.environ),
        middleware=middleware,
        python=sys.version_info[:2],
        clock_keepers=tuple(sorted(processes & set(CLOCK_KEEPERS))),
    )


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # not on this system, or a process that has ended
        return ""


def check(host: Host, simulated: bool, min_free_mb: int) -> list[Finding]:
    """All of it, but for the domain, which `domain` judges by what is found there."""
    network = [_receive_buffers(host), _fragments(host), _clock(host)]
    if simulated:
        network = [Check(finding.name).skip(SIMULATED) for finding in network]
    return [*network, _disk(host, min_free_mb), _middleware(host), _discovery(host, simulated), _python(host)]


def domain(host: Host, topics: int, found: int) -> Finding:
    """found: how many of the robot's topics are published in this domain."""
    check = Check("network: domain", "the robot's domain")
    name = host.environment.get("ROS_DOMAIN_ID") or "0, since ROS_DOMAIN_ID is not set"
    seen = f"{found} of {topics} topics in domain {name}"
    if found:
        return check.passed(seen)
    todo = (
        "set ROS_DOMAIN_ID to the robot's (grep ROS_DOMAIN_ID ~/.bashrc there), boot its stack, look at the cable; a"
        " robot with a discovery server needs FASTRTPS_DEFAULT_PROFILES_FILE here"
    )
    return check.fail(seen, todo)


def _receive_buffers(host: Host) -> Finding:
    check = Check("network: receive buffers", f"at least {RECEIVE_BUFFER}")
    todo = " ".join(["sudo sysctl -w", *(f"{name}={RECEIVE_BUFFER}" for name in RECEIVE_BUFFERS)])
    enough = all(host.kernel.get(name, 0) >= RECEIVE_BUFFER for name in RECEIVE_BUFFERS)
    return _kernel(check, host, RECEIVE_BUFFERS, enough, todo)


def _fragments(host: Host) -> Finding:
    """Images travel in datagrams of many fragments; one that is lost must not hold the memory of the others for
    long.
    """
    allowed = f"{FRAGMENT_MEMORY} at least {ENOUGH_MEMORY}, or {FRAGMENT_TIME} at most {SHORT_TIME_S}"
    enough = host.kernel.get(FRAGMENT_MEMORY, 0) >= ENOUGH_MEMORY or host.kernel.get(FRAGMENT_TIME, 30) <= SHORT_TIME_S
    todo = f"sudo sysctl -w {FRAGMENT_MEMORY}={ENOUGH_MEMORY} {FRAGMENT_TIME}={SHORT_TIME_S}"
    return _kernel(Check("network: fragments", allowed), host, FRAGMENTS, enough, todo)


def _kernel(check: Check, host: Host, names: tuple[str, ...], enough: bool, todo: str) -> Finding:
    known = ", ".join(f"{name} = {host.kernel[name]}" for name in names if name in host.kernel)
    if not known:
        return check.skip(f"this system has no {names[0]}")
    return check.passed(known) if enough else check.warn(known, todo)


def _clock(host: Host) -> Finding:
    check = Check("host: clock", "a program that keeps it (chrony, ntp, ptp)")
    if host.clock_keepers:
        return check.passed(", ".join(host.clock_keepers))
    todo = "install chrony here and on the robot, one of them following the other"
    return check.warn("nothing keeps this machine's clock", todo)


def _disk(host: Host, min_free_mb: int) -> Finding:
    check = Check("host: disk", f"{COMFORTABLE_MB / 1024:.0f} GiB; the recorder needs {min_free_mb} MiB")
    free_mb = host.free_bytes / 2**20
    seen = f"{free_mb / 1024:.1f} GiB free for {host.bags}"
    if free_mb < min_free_mb:
        return check.fail(seen, "make room, or record elsewhere (bag:=)")
    if free_mb < COMFORTABLE_MB:
        return check.warn(seen, "make room before a longer session")
    return check.passed(seen)


def _middleware(host: Host) -> Finding:
    check = Check("network: middleware", f"{MIDDLEWARE}, the robot's")
    if host.middleware != MIDDLEWARE:
        return check.warn(host.middleware, f"export RMW_IMPLEMENTATION={MIDDLEWARE}")
    variables = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    profiles = {variable: host.environment[variable] for variable in variables if host.environment.get(variable)}
    missing = [f"{variable}={file}" for variable, file in profiles.items() if not os.path.exists(file)]
    if missing:
        return check.fail(f"{', '.join(missing)} does not exist", "correct or unset it")
    return check.passed(", ".join([host.middleware, *profiles.values()]))


def _discovery(host: Host, simulated: bool) -> Finding:
    check = Check("network: discovery", "this machine" if simulated else "the robot's network")
    ranges = ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")
    given = {variable: host.environment[variable] for variable in ranges if host.environment.get(variable)}
    seen = ", ".join(f"{variable}={value}" for variable, value in given.items()) or "the network of this machine"
    reach = given.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    local = reach == "LOCALHOST" or given.get("ROS_LOCALHOST_ONLY") == "1"
    if reach == "OFF" or (local and not simulated):
        return check.fail(seen, "unset it: the robot is another machine")
    if simulated and not local:
        todo = "unset it, so that the simulation, which speaks the robot's topics, keeps to this machine"
        return check.warn(seen, todo)
    return check.passed(seen)


def _python(host: Host) -> Finding:
    check = Check("host: Python", "Python 3.10 or later")
    seen = f"Python {host.python[0]}.{host.python[1]}, ROS {host.environment.get('ROS_DISTRO') or 'from the wheels'}"
    return check.passed(seen) if host.python >= (3, 10) else check.fail(seen)
