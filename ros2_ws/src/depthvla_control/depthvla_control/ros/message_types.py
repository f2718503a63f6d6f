"""Message types by their names, as a ROS graph or a bag tells them: "sensor_msgs/msg/Image"."""

from __future__ import annotations

import importlib
from pathlib import Path

from ament_index_python.packages import get_package_share_directory


def message_class(message_type: str) -> type:
    """Raises ImportError where it is not installed."""
    package, kind, name = message_type.split("/")
    module = importlib.import_module(f"{package}.{kind}")
    if not hasattr(module, name):
        raise ImportError(f"package {package} has no type {message_type}")
    return getattr(module, name)


def read_definition(message_type: str) -> str:
    """The .msg text of an installed message type. Raises LookupError or OSError where there is none."""
    package, _, name = message_type.split("/")
    return Path(get_package_share_directory(package), "msg", f"{name}.msg").read_text()
