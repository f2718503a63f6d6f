"""Judges the computer on which the policy will run: network settings, disk, clock, ROS environment."""

from __future__ import annotations

import os

from r1lite_bringup.preflight.host import Host
from r1lite_bringup.preflight.verdict import Finding, Verdict, skipped

RECEIVE_BUFFER = 16 * 2**20  # three compressed cameras at 60 Hz overflow the usual 208 KiB
FRAGMENT_MEMORY = 128 * 2**20
FRAGMENT_TIME_S = 3
COMFORTABLE_MB = 20_000  # some ten minutes of three cameras, at least
MIDDLEWARE = "rmw_fastrtps_cpp"
SIMULATED = "no network is between this machine and its simulation"


def check(host: Host, simulated: bool, min_free_mb: int) -> list[Finding]:
    """All of it, but for the domain, which `domain` judges by what is found there."""
    network = [_receive_buffers(host), _fragments(host), _clock(host)]
    if simulated:
        network = [skipped(finding.name, SIMULATED) for finding in network]
    return [*network, _disk(host, min_free_mb), _middleware(host), _discovery(host, simulated), _python(host)]


def domain(host: Host, topics: int, found: int) -> Finding:
    """found: how many of the robot's topics are published in this domain."""
    name, text = "network: domain", host.environment.get("ROS_DOMAIN_ID") or "0, since ROS_DOMAIN_ID is not set"
    seen, expected = f"{found} of {topics} topics in domain {text}", "the robot's domain"
    if found:
        return Finding(name, Verdict.PASS, seen, expected)
    todo = (
        "set ROS_DOMAIN_ID to the robot's (grep ROS_DOMAIN_ID ~/.bashrc there), boot its stack, look at the cable; a"
        " robot with a discovery server needs FASTRTPS_DEFAULT_PROFILES_FILE here"
    )
    return Finding(name, Verdict.FAIL, seen, expected, todo)


def _receive_buffers(host: Host) -> Finding:
    names = ("net.core.rmem_max", "net.core.rmem_default")
    todo = " ".join(["sudo sysctl -w", *(f"{name}={RECEIVE_BUFFER}" for name in names)])
    enough = all(host.kernel.get(name, 0) >= RECEIVE_BUFFER for name in names)
    return _kernel("network: receive buffers", host, names, f"at least {RECEIVE_BUFFER}", enough, todo)


def _fragments(host: Host) -> Finding:
    memory, time = names = ("net.ipv4.ipfrag_high_thresh", "net.ipv4.ipfrag_time")
    # Images travel in datagrams of many fragments; one that is lost must not hold the memory of the others for long.
    enough = host.kernel.get(memory, 0) >= FRAGMENT_MEMORY or host.kernel.get(time, 30) <= FRAGMENT_TIME_S
    expected = f"{memory} at least {FRAGMENT_MEMORY}, or {time} at most {FRAGMENT_TIME_S}"
    todo = f"sudo sysctl -w {memory}={FRAGMENT_MEMORY} {time}={FRAGMENT_TIME_S}"
    return _kernel("network: fragments", host, names, expected, enough, todo)


def _kernel(name: str, host: Host, settings: tuple[str, ...], expected: str, enough: bool, todo: str) -> Finding:
    known = [f"{setting} = {host.kernel[setting]}" for setting in settings if setting in host.kernel]
    if not known:
        return skipped(name, f"this system has no {settings[0]}")
    return Finding(name, Verdict.PASS if enough else Verdict.WARN, ", ".join(known), expected, "" if enough else todo)


def _clock(host: Host) -> Finding:
    name, expected = "host: clock", "a program that keeps it (chrony, ntp, ptp)"
    if host.clock_keepers:
        return Finding(name, Verdict.PASS, ", ".join(host.clock_keepers), expected)
    todo = "install chrony here and on the robot, one of them following the other"
    return Finding(name, Verdict.WARN, "nothing keeps this machine's clock", expected, todo)


def _disk(host: Host, min_free_mb: int) -> Finding:
    free_mb = host.free_bytes / 2**20
    seen, expected = f"{free_mb / 1024:.1f} GiB free for {host.bags}", f"{COMFORTABLE_MB / 1024:.0f} GiB"
    if free_mb < min_free_mb:
        todo = "make room, or record elsewhere (bag:=)"
        return Finding("host: disk", Verdict.FAIL, seen, f"{expected}; the recorder needs {min_free_mb} MiB", todo)
    if free_mb < COMFORTABLE_MB:
        return Finding("host: disk", Verdict.WARN, seen, expected, "make room before a longer session")
    return Finding("host: disk", Verdict.PASS, seen, expected)


def _middleware(host: Host) -> Finding:
    name, expected = "network: middleware", f"{MIDDLEWARE}, the robot's"
    if host.middleware != MIDDLEWARE:
        todo = f"export RMW_IMPLEMENTATION={MIDDLEWARE}"
        return Finding(name, Verdict.WARN, host.middleware, expected, todo)
    variables = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    profiles = {variable: host.environment[variable] for variable in variables if host.environment.get(variable)}
    missing = [f"{variable}={file}" for variable, file in profiles.items() if not os.path.exists(file)]
    if missing:
        return Finding(name, Verdict.FAIL, f"{', '.join(missing)} does not exist", expected, "correct or unset it")
    seen = ", ".join([host.middleware, *profiles.values()])
    return Finding(name, Verdict.PASS, seen, expected)


def _discovery(host: Host, simulated: bool) -> Finding:
    name, environment = "network: discovery", host.environment
    expected = "this machine" if simulated else "the robot's network"
    ranges = ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")
    given = {variable: environment[variable] for variable in ranges if environment.get(variable)}
    seen = ", ".join(f"{variable}={value}" for variable, value in given.items()) or "the network of this machine"
    reach = given.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    local = reach == "LOCALHOST" or given.get("ROS_LOCALHOST_ONLY") == "1"
    if reach == "OFF" or (local and not simulated):
        return Finding(name, Verdict.FAIL, seen, expected, "unset it: the robot is another machine")
    if simulated and not local:
        todo = "unset it, so that the simulation, which speaks the robot's topics, keeps to this machine"
        return Finding(name, Verdict.WARN, seen, expected, todo)
    return Finding(name, Verdict.PASS, seen, expected)


def _python(host: Host) -> Finding:
    seen = f"Python {host.python[0]}.{host.python[1]}, ROS {host.environment.get('ROS_DISTRO') or 'from the wheels'}"
    expected = "Python 3.10 or later"
    verdict = Verdict.PASS if host.python >= (3, 10) else Verdict.FAIL
    return Finding("host: Python", verdict, seen, expected)
