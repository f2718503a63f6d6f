#!/usr/bin/env bash
# From a bare machine to a built workspace: system packages, .venv, pinned Python packages, colcon build.
# A step is skipped while what it was made from has not changed. Logs are in .setup/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

main() {
  mkdir -p .setup
  choose_python
  step_number=0 steps=4 progress=""
  system_packages
  virtual_environment
  python_packages
  workspace
}

# A ROS distribution is used where one is sourced; its Python then is the only one that can import rclpy.
choose_python() {
  # A sourced tools/env.sh puts .venv first on the path; the Python below it is the one that is wanted.
  PATH=$(printf %s "$PATH" | tr : '\n' | grep -vxF "$root/.venv/bin" | paste -sd: -)
  distro="" python=""
  local candidate
  if [ -n "${ROS_DISTRO:-}" ]; then
    for candidate in ${PYTHON:-python3 /usr/bin/python3}; do
      works "$candidate" "import rclpy" || continue
      distro=$ROS_DISTRO python=$candidate
      works "$python" "import sys; assert sys.version_info >= (3, 11)" || stop \
        "ROS $distro runs on $("$python" -V), but the pinned transformers and mujoco need Python 3.11 or newer." \
        "Use ROS 2 Jazzy, or open a shell that sources no ROS distribution: the ROS wheels are installed then."
      return
    done
  fi
  # Left by another environment, these would mix its libraries and modules into this one.
  unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH PYTHONPATH COLCON_PREFIX_PATH
  local pyenv=${PYENV_ROOT:-${HOME:-}/.pyenv}
  for candidate in ${PYTHON:-python3.11 python3.12 python3 "$pyenv"/versions/3.1[12].*/bin/python}; do
    if works "$candidate" "import sys; assert sys.version_info[:2] in ((3, 11), (3, 12))"; then
      python=$candidate
      return
    fi
  done
  [ -z "${PYTHON:-}" ] || stop "PYTHON=$PYTHON is not a Python 3.11 or 3.12; the ROS wheels exist for these only."
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
  if [ -n "$distro" ]; then # their cv2 and numpy fit each other, and numpy the message types
    works "$python" "import cv2" || missing+=(python3-opencv)
    works "$python" "import colcon_core" || missing+=(python3-colcon-common-extensions)
  fi
  if command -v dpkg-query >/dev/null; then # headless rendering: EGL and Mesa's software rasteriser
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
    stop "Missing system packages, and no right to install them. Run this, then the same make command again:" \
      "  sudo sh -c '$install'"
  fi
  # The update may fail for a repository that has nothing to do with this; the installation tells.
  step "system packages" "Run it by hand: $install" \
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c "$install"
  [ -n "$python" ] || choose_python
  [ -n "$python" ] || stop "$(python3 -V) is neither Python 3.11 nor 3.12; the ROS wheels exist for these only." \
    "Install one of them (pyenv install 3.11) and name it: make setup PYTHON=/path/to/python3.11"
}

virtual_environment() {
  local site=false
  if [ -n "$distro" ]; then site=true; fi
  if works .venv/bin/python "import pip, sys; assert sys.version_info >= (3, 11)" &&
    grep -qx "include-system-site-packages = $site" .venv/pyvenv.cfg &&
    grep -q "VIRTUAL_ENV=.*$root/.venv\b" .venv/bin/activate; then # its scripts hold absolute paths: it cannot be moved
    skip_step
    return
  fi
  rm -rf .venv
  local options=()
  if [ -n "$distro" ]; then options=(--system-site-packages); fi
  step ".venv from $python" "Another Python: make setup PYTHON=/path/to/python3.11" \
    "$python" -m venv "${options[@]}" .venv
}

python_packages() {
  local files=(requirements.txt requirements-dev.txt) stamp=.venv/packages.stamp
  if [ -z "$distro" ]; then files+=(requirements-ros.txt constraints.txt tools/fix_ros_wheels.py); fi
  local key
  key=$(cat "${files[@]}" | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then
    skip_step
    return
  fi
  local install=install_with_ros_wheels
  if [ -n "$distro" ]; then install=install_over_distribution; fi
  progress=count_packages
  step "Python packages" "Is the package index reachable? The same make command again goes on from here." $install
  progress=""
  echo "$key" >"$stamp"
}

count_packages() { # pip is silent while it unpacks
  echo "$(find .venv/lib -maxdepth 3 -name '*.dist-info' | wc -l) installed, "
}

install_with_ros_wheels() {
  pip_install -r requirements.txt -r requirements-ros.txt -r requirements-dev.txt -c constraints.txt
  .venv/bin/python tools/fix_ros_wheels.py
}

# numpy and OpenCV stay the distribution's own: its message types and cv_bridge are compiled against them.
install_over_distribution() {
  {
    .venv/bin/python -c 'import numpy; print("numpy==" + numpy.__version__)'
    echo "setuptools<80" # a newer one makes --symlink-install a copy without saying so
  } >.setup/constraints.txt
  grep -vE '^(numpy|opencv-python-headless)==' requirements.txt >.setup/requirements.txt
  pip_install -r .setup/requirements.txt -r requirements-dev.txt -c .setup/constraints.txt
}

pip_install() {
  .venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off "$@"
}

workspace() {
  # What a build is made from: descriptions and interfaces by content, installed files by name, as they are links.
  local place key stamp=ros2_ws/install/build.stamp
  # Not the packages' contents: what another set of packages left in the install folder is in nobody's way then.
  place="$root $(.venv/bin/python -V) $distro $(cd ros2_ws/src && echo */)"
  key=$({
    cat .venv/packages.stamp
    cd ros2_ws/src
    find . -type d \( -name __pycache__ -o -name test -o -name '*.egg-info' \) -prune \
      -o -type f ! -name '*.py' -print | LC_ALL=C sort
    find . -type f \
      \( -name package.xml -o -name CMakeLists.txt -o -name 'setup.*' -o -name '*.msg' -o -name '*.srv' \) -print0 |
      LC_ALL=C sort -z | xargs -0 cat
  } | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$place"$'\n'"$key" ]; then
    skip_step
    return
  fi
  if [ "$(head -n 1 "$stamp" 2>/dev/null)" != "$place" ]; then # a build holds absolute paths: it cannot be moved
    rm -rf ros2_ws/build ros2_ws/install ros2_ws/log
  fi
  step "ROS workspace" "Logs: ros2_ws/log/latest_build. To build afresh: make clean, then this again." \
    build_workspace
  printf '%s\n' "$place" "$key" >"$stamp"
}

build_workspace() {
  export PATH=$root/.venv/bin:$PATH
  if [ -z "$distro" ]; then
    export AMENT_PREFIX_PATH=$root/.venv CMAKE_PREFIX_PATH=$root/.venv
  fi
  cd ros2_ws
  # colcon through the interpreter of .venv: it is the one that the installed nodes then start with.
  "$root/.venv/bin/python" -c "import sys; from colcon_core.command import main; sys.exit(main())" \
    build --symlink-install --event-handlers console_direct+ \
    --cmake-args -DBUILD_TESTING=OFF -DPython3_EXECUTABLE="$root/.venv/bin/python"
}

# Runs a command with its output in a log, showing the time that passed and the log's newest line.
step() {
  local title=$1 advice=$2 started=$SECONDS log
  shift 2
  step_number=$((step_number + 1))
  log=.setup/$step_number-$(printf %s "$title" | tr -cs 'A-Za-z0-9.\n' -).log
  set -m # gives the command a process group of its own, to be ended as a whole
  "$@" >"$log" 2>&1 </dev/null &
  local pid=$!
  set +m
  trap "kill -TERM -- -$pid; stop '' 'Interrupted: the same make command again goes on from here.'" INT TERM
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

works() {
  "$1" -c "$2" >/dev/null 2>&1
}

stop() {
  printf '%s\n' "$@" >&2
  exit 1
}

main
