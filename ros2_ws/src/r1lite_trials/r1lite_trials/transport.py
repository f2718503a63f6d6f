"""How the processes of a trial talk: UDP on this machine's loopback interface, as UDP it is between machines.

With discovery limited to LOCALHOST, rmw_fastrtps also takes shared memory, over which a process that is killed or
stopped stalls its neighbours: messages came up to 1.3 s late, and the executor missed 8 to 13 ticks in a row.
"""

from __future__ import annotations

import os
from pathlib import Path

PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <transport_descriptors>
    <transport_descriptor>
      <transport_id>loopback</transport_id>
      <type>UDPv4</type>
      <interfaceWhiteList><address>127.0.0.1</address></interfaceWhiteList>
      <maxInitialPeersRange>32</maxInitialPeersRange>
    </transport_descriptor>
  </transport_descriptors>
  <participant profile_name="loopback" is_default_profile="true">
    <rtps>
      <userTransports><transport_id>loopback</transport_id></userTransports>
      <useBuiltinTransports>false</useBuiltinTransports>
      <builtin>
        <initialPeersList><locator><udpv4><address>127.0.0.1</address></udpv4></locator></initialPeersList>
        <metatrafficUnicastLocatorList><locator/></metatrafficUnicastLocatorList>
      </builtin>
    </rtps>
  </participant>
</profiles>
"""


def use_loopback(folder: Path) -> None:
    """Sets the environment for this process's next ROS context and for its children; the profile is put in `folder`."""
    if os.environ.get("ROS_DISTRO") == "humble":
        return  # ROS_LOCALHOST_ONLY decides there, and a profile does not
    profile = folder / "fastdds.xml"
    profile.write_text(PROFILE)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SYSTEM_DEFAULT"  # what the profile says
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):  # before Fast DDS 3, and since
        os.environ[name] = str(profile.absolute())
