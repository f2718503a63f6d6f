# The environment in which everything of this repository runs. The Makefile sources it, and so may you (bash):
#   source tools/env.sh && depthvla up robot:=sim
#   source tools/env.sh --robot-side && ros2 run depthvla_control chunk_executor_node --help
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case "${1:-}" in
  --robot-side) _side=-robot _setup="tools/setup.sh --robot-side" ;;
  *) _side="" _setup="make setup" ;;
esac
if [ ! -f "$_root/ros2_ws/install$_side/setup.bash" ]; then
  echo "$_root is not set up: run '$_setup' there first" >&2
  return 1
fi
_venv=$_root/.venv$_side
if grep -qx "include-system-site-packages = true" "$_venv/pyvenv.cfg"; then
  if [ -z "${ROS_DISTRO:-}" ]; then
    echo "$_venv was made over a ROS distribution: source that first, or remove it and run '$_setup'" >&2
    return 1
  fi
  _over_ros=yes
else
  _over_ros=""
  # The ROS wheels find their libraries when Python starts, unless another environment says that it was done.
  unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH PYTHONPATH
  export AMENT_PREFIX_PATH=$_venv CMAKE_PREFIX_PATH=$_venv
fi
# In front also where it is on the path already: a nested shell may have put another Python before it.
case "$PATH" in
  "$_venv/bin:"*) ;;
  *) export PATH=$_venv/bin:$PATH ;;
esac
# colcon's script reads variables that may be unset.
case $- in *u*) _restore="set -u" ;; *) _restore="" ;; esac
set +u
source "$_root/ros2_ws/install$_side/setup.bash"
$_restore
# `ros2` runs on the distribution's own Python, and `ros2 launch` imports what pip installed.
if [ -n "$_over_ros" ]; then
  for _site in "$_venv"/lib/python3*/site-packages; do
    case ":${PYTHONPATH:-}:" in
      *":$_site:"*) ;;
      *) export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$_site ;;
    esac
  done
fi
if [ -n "${PS1:-}" ] && [ -z "$_side" ]; then source "$_root/ros2_ws/src/r1lite_bringup/completion/depthvla.bash"; fi
# rclpy refuses to start without a folder for its logs.
if [ -z "${ROS_LOG_DIR:-}" ] && [ ! -w "${HOME:-/nonexistent}" ]; then
  export ROS_LOG_DIR=$_root/out/log
fi
unset _root _side _setup _venv _restore _over_ros _site
