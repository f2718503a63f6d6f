#!/usr/bin/env bash
# From a bare machine to a built workspace: system packages, .venv, pinned Python packages, colcon build.
# With --robot-side, what runs on the robot's own computer and nothing else, beside the full set-up if there is one:
# .venv-robot, ros2_ws/install-robot.
# A step is skipped while what it was made from has not changed. Logs are in .setup/ (.setup-robot/).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
robot_side=(depthvla_msgs r1lite_description depthvla_control)

main() {
  case "${1:-}" in
    "")
      side="" pythons=(3.11 3.12) requirements=(requirements.txt requirements-robot.txt requirements-dev.txt)
      packages=(ros2_ws/src/*/)
      ;;
    --robot-side)
      side=-robot pythons=(3.10 3.11 3.12) requirements=(requirements-robot.txt)
      packages=("${robot_side[@]/#/ros2_ws/src/}")
      ;;
    *) stop "usage: tools/setup.sh [--robot-side]; not '$*'" ;;
  esac
  venv=.venv$side logs=.setup$side build=ros2_ws/build$side install=ros2_ws/install$side
  mkdir -p "$logs"
  choose_python
  step_number=0 steps=4 progress=""
  system_packages
  virtual_environment
  python_packages
  workspace
}

# A ROS distribution is used where one is sourced; its Python then is the only one that can import rclpy.
choose_python() {
  # A sourced tools/env.sh puts its environment first on the path; the Python below it is the one that is wanted.
  PATH=$(printf %s "$PATH" | tr : '\n' | grep -vxF -e "$root/.venv/bin" -e "$root/.venv-robot/bin" | paste -sd: -)
  distro="" python=""
  local candidate
  if [ -n "${ROS_DISTRO:-}" ]; then
    for candidate in ${PYTHON:-python3 /usr/bin/python3}; do
      works "$candidate" "import rclpy" || continue
      distro=$ROS_DISTRO python=$candidate
      works "$python" "import sys; assert sys.version_info >= (3, ${pythons[0]#3.})" || stop \
        "ROS $distro runs on $("$python" -V); what is installed here needs Python ${pythons[0]} or newer." \
        "Use ROS 2 Jazzy, or open a shell that sources no ROS distribution: the ROS wheels are installed then." \
        "On the robot's own computer, which needs the executor alone: tools/setup.sh --robot-side"
      return
    done
  fi
  # Left by another environment, these would mix its libraries and modules into this one.
  unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH PYTHONPATH COLCON_PREFIX_PATH
  local pyenv=${PYENV_ROOT:-${HOME:-}/.pyenv}
  for candidate in ${PYTHON:-${pythons[*]/#/python} python3 "$pyenv"/versions/3.1[0-2].*/bin/python}; do
    if works "$candidate" "import sys; assert '%d.%d' % sys.version_info[:2] in '${pythons[*]}'.split()"; then
      python=$candidate
      return
    fi
  done
  [ -z "${PYTHON:-}" ] || stop "PYTHON=$PYTHON is not a Python $(either "${pythons[@]}"), as the ROS wheels need."
}

system_packages() {
  local missing=()
  [ -n "$python" ] || missing+=(python3 python3-venv python3-dev)
  if [ -n "$python" ]; then
    local version
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    works "$python" "import ensurepip, venv" || missing+=("$version-venv")
    works "$python" "import os, sysconfig; assert os.path.exists(sysconfig.get_paths()['include'] + '/Python.h')" ||
      missing+=("$version-dev")
  fi
  command -v make >/dev/null || missing+=(make)
  command -v cmake >/dev/null || missing+=(cmake)
  command -v g++ >/dev/null || missing+=(g++)
  if [ -n "$distro" ]; then
    works "$python" "import colcon_core" || missing+=(python3-colcon-common-extensions)
    if [ -z "$side" ]; then # its cv2 and numpy fit each other, and numpy the message types
      works "$python" "import cv2" || missing+=(python3-opencv)
    fi
  fi
  # Headless rendering: EGL and Mesa's software rasteriser.
  if [ -z "$side" ] && command -v dpkg-query >/dev/null; then
    local package
    for package in libegl1 libgl1 libgl1-mesa-dri; do
      dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
  fi
  if [ ${#missing[@]} -eq 0 ]; then
    skip_step
    return
  fi

  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
  local install="apt-get update; apt-get install -y --no-install-recommends ${missing[*]}"
  command -v apt-get >/dev/null || stop "Missing: ${missing[*]} (names of Debian's packages)." \
    "There is no apt-get here: install what corresponds to them, then run this again."
  if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
    stop "Missing system packages, and no right to install them. Run this, then the same command again:" \
      "  sudo sh -c '$install'"
  fi
  # The update may fail for a repository that has nothing to do with this; the installation tells.
  step "system packages" "Run it by hand: $install" \
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c "$install"
  [ -n "$python" ] || choose_python
  [ -n "$python" ] || stop "$(python3 -V) is not a Python $(either "${pythons[@]}"), as the ROS wheels need." \
    "Install one of them (pyenv install 3.11) and name it: PYTHON=/path/to/python3.11 tools/setup.sh"
}

virtual_environment() {
  local site=false options=()
  if [ -n "$distro" ]; then site=true options=(--system-site-packages); fi
  if works "$venv/bin/python" "import pip, sys; assert sys.version_info >= (3, ${pythons[0]#3.})" &&
    grep -qx "include-system-site-packages = $site" "$venv/pyvenv.cfg" &&
    # The scripts of one that was moved hold the old place.
    grep -q "VIRTUAL_ENV=.*$root/$venv\b" "$venv/bin/activate" &&
    { [ -z "${PYTHON:-}" ] || [ "$("$venv/bin/python" -V)" = "$("$python" -V)" ]; }; then
    skip_step
    return
  fi
  rm -rf "$venv"
  step "$venv from $python" "Another Python: PYTHON=/path/to/python3.11 tools/setup.sh" \
    "$python" -m venv "${options[@]}" "$venv"
}

python_packages() {
  local files=("${requirements[@]}") stamp=$venv/packages.stamp install_packages=install_over_distribution key
  if [ -z "$distro" ]; then
    files+=(requirements-ros.txt constraints.txt tools/fix_ros_wheels.py)
    install_packages=install_with_ros_wheels
  fi
  key=$(cat "${files[@]}" | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then
    skip_step
    return
  fi
  progress=count_packages
  step "Python packages" "Is the package index reachable? The same command again goes on from here." $install_packages
  progress=""
  echo "$key" >"$stamp"
}

count_packages() { # pip is silent while it unpacks
  echo "$(find "$venv/lib" -maxdepth 3 -name '*.dist-info' | wc -l) installed, "
}

install_with_ros_wheels() {
  # requirements-dev.txt pins pytest, which colcon needs.
  pip_install "${requirements[@]/#/-r}" -r requirements-ros.txt -c constraints.txt -c requirements-dev.txt
  "$venv/bin/python" tools/fix_ros_wheels.py
}

# numpy and OpenCV stay the distribution's own: its message types and cv_bridge are compiled against them.
install_over_distribution() {
  local from_distribution="numpy|opencv-python-headless"
  # On the robot everything is that has a rosdep key.
  if [ -n "$side" ]; then from_distribution="numpy|PyYAML|xacro|rich"; fi
  {
    "$venv/bin/python" -c 'import numpy; print("numpy==" + numpy.__version__)'
    echo "setuptools<80" # a newer one makes --symlink-install a copy without saying so
  } >"$logs/constraints.txt"
  grep -hvE "^(-r|($from_distribution)=)" "${requirements[@]}" >"$logs/requirements.txt"
  pip_install -r "$logs/requirements.txt" -c "$logs/constraints.txt"
}

pip_install() {
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off "$@"
}

workspace() {
  # What a build is made from: descriptions and interfaces by content, installed files by name, as they are links.
  local place key stamp=$install/build.stamp
  # Not the packages' contents: what another set of packages left in the install folder is in nobody's way then.
  place="$root $("$venv/bin/python" -V) $distro ${packages[*]}"
  key=$({
    cat "$venv/packages.stamp"
    find "${packages[@]}" -type d \( -name __pycache__ -o -name test -o -name '*.egg-info' \) -prune \
      -o -type f ! -name '*.py' -print | LC_ALL=C sort
    find "${packages[@]}" -type f \
      \( -name package.xml -o -name CMakeLists.txt -o -name 'setup.*' -o -name '*.msg' -o -name '*.srv' \) -print0 |
      LC_ALL=C sort -z | xargs -0 cat
  } | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$place"$'\n'"$key" ]; then
    skip_step
    return
  fi
  if [ "$(head -n 1 "$stamp" 2>/dev/null)" != "$place" ]; then # a build holds absolute paths: it cannot be moved
    rm -rf "$build" "$install" "ros2_ws/log$side"
  fi
  step "ROS workspace" "Logs: ros2_ws/log$side/latest_build. To build afresh: make clean, then this again." \
    build_workspace
  printf '%s\n' "$place" "$key" >"$stamp"
}

build_workspace() {
  local python=$root/$venv/bin/python
  export PATH=$root/$venv/bin:$PATH
  if [ -z "$distro" ]; then
    export AMENT_PREFIX_PATH=$root/$venv CMAKE_PREFIX_PATH=$root/$venv
  fi
  # colcon through the interpreter of the environment: it is the one that the installed nodes then start with.
  "$python" -c "import sys; from colcon_core.command import main; sys.exit(main())" \
    --log-base "ros2_ws/log$side" build --paths "${packages[@]}" --build-base "$build" --install-base "$install" \
    --symlink-install --event-handlers console_direct+ \
    --cmake-args -DBUILD_TESTING=OFF -DPython3_EXECUTABLE="$python"
}

# Runs a command with its output in a log, showing the time that passed and the log's newest line.
step() {
  local title=$1 advice=$2 started=$SECONDS log
  shift 2
  step_number=$((step_number + 1))
  log=$logs/$step_number-$(printf %s "$title" | tr -cs 'A-Za-z0-9.\n' -).log
  set -m # gives the command a process group of its own, to be ended as a whole
  "$@" >"$log" 2>&1 </dev/null &
  local pid=$!
  set +m
  trap "kill -TERM -- -$pid; stop '' 'Interrupted: the same command again goes on from here.'" INT TERM
  local shown=-1 elapsed
  while kill -0 "$pid" 2>/dev/null; do
    elapsed=$((SECONDS - started))
    if [ -t 1 ]; then
      printf '\r\033[K%s' "$(progress "$title" "$elapsed" "$log" | cut -c "1-$(tput cols 2>/dev/null || echo 80)")"
    elif [ $((elapsed / 15)) -ne $shown ]; then
      shown=$((elapsed / 15))
      progress "$title" "$elapsed" "$log" | cut -c 1-120
    fi
    sleep 0.2
  done
  local status=0
  wait "$pid" || status=$?
  trap - INT TERM
  if [ -t 1 ]; then printf '\r\033[K'; fi
  if [ $status -ne 0 ]; then
    tail -n 25 "$log" | sed 's/^/    /' >&2
    stop "Step '$title' failed with exit code $status. Above is the end of $log." "$advice"
  fi
  echo "[$step_number/$steps] $title: done in $((SECONDS - started)) s"
}

progress() {
  local newest
  newest=$(tail -c 400 "$3" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 | sed 's/^ *//') || true
  echo "[$step_number/$steps] $1: $2 s  $($progress)$newest"
}

skip_step() {
  step_number=$((step_number + 1))
}

either() {
  printf %s "$1"
  printf ' or %s' "${@:2}"
}

works() {
  "$1" -c "$2" >/dev/null 2>&1
}

stop() {
  printf '%s\n' "$@" >&2
  exit 1
}

main "$@"
