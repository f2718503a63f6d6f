"""The environment in which nodes talk to this machine only, whatever the shell was set up for."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

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
    """Changes to the environment `current`; None: that variable is removed."""
    removed: dict[str, str | None] = {name: None for name in OF_A_NETWORK if name in current}
    if current.get("ROS_DISTRO") == "humble":
        limited = {"ROS_LOCALHOST_ONLY": "1"}
    else:
        limited = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    # A profile that happens to lie in the working directory is read as well.
    return {**removed, **limited, "SKIP_DEFAULT_XML_FILE": "1"}


def apply(changes: Mapping[str, str | None], environment: MutableMapping[str, str] = os.environ) -> None:
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
