"""The environment in which nodes talk to this machine only, whatever the shell was set up for."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from importlib.util import find_spec

# Each of them can lead to other machines although discovery is limited to this one: a peer, a discovery server and a
# profile are asked for all the same.
OF_A_NETWORK = (
    *("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS"),
    *("ROS_DISCOVERY_SERVER", "ROS_SUPER_CLIENT", "FASTDDS_ENVIRONMENT_FILE"),
    *("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "RMW_FASTRTPS_USE_QOS_FROM_XML"),
    *("CYCLONEDDS_URI", "NDDS_DISCOVERY_PEERS", "NDDS_QOS_PROFILES"),
    *("ZENOH_ROUTER_CONFIG_URI", "ZENOH_SESSION_CONFIG_URI", "ZENOH_CONFIG_OVERRIDE"),
)


def this_machine_only(current: Mapping[str, str]) -> dict[str, str | None]:
    """Changes to the environment `current`; None: that variable is removed.

    Raises:
        ValueError: the middleware that it names cannot be kept to this machine.
    """
    removed: dict[str, str | None] = {name: None for name in OF_A_NETWORK if name in current}
    if current.get("RMW_IMPLEMENTATION", "").startswith("rmw_zenoh"):
        raise ValueError(
            f"RMW_IMPLEMENTATION={current['RMW_IMPLEMENTATION']}: its router may lead to other machines, and nothing"
            " here can keep it from that; use another middleware, or network:=shell with a router of its own"
        )
    limited = {"ROS_LOCALHOST_ONLY": "1"} if _is_humble(current) else {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    # A profile that happens to lie in the working directory is read as well.
    return {**removed, **limited, "SKIP_DEFAULT_XML_FILE": "1"}


def _is_humble(current: Mapping[str, str]) -> bool:
    """Also where nothing in the environment says so, as under sudo or cron."""
    distribution = current.get("ROS_DISTRO")
    if distribution:
        return distribution == "humble"
    return find_spec("rclpy") is not None and find_spec("rclpy.event_handler") is None


def apply(changes: Mapping[str, str | None], environment: MutableMapping[str, str] = os.environ) -> None:
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
