#!/usr/bin/env bash
# Runs a command in the workspace's environment: over the ROS distribution where there is one, else over the ROS wheels.
set -eo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -f "/opt/ros/${ROS_DISTRO:-none}/setup.bash" ]; then
  # shellcheck source=/dev/null
  source "/opt/ros/$ROS_DISTRO/setup.bash"
fi
# shellcheck source=tools/env.sh
source "$root/tools/env.sh"
# A compose file can only leave it empty, and Fast DDS complains about a file without a name.
if [ -z "${FASTRTPS_DEFAULT_PROFILES_FILE:-}" ]; then
  unset FASTRTPS_DEFAULT_PROFILES_FILE
fi
if [ $# -eq 0 ]; then
  set -- bash
fi
exec "$@"
