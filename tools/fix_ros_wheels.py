"""Points the CMake files of the ROS wheels in this virtual environment at its own Python and numpy headers.

The wheels carry the include paths of the machine that built them; interface packages fail to configure until they are
rewritten. Running it again is harmless, and necessary after numpy or a ros-* wheel was reinstalled.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy


def main() -> int:
    replacements = (
        (re.compile(r'[^;"\s]*/numpy/_?core/include'), numpy.get_include()),
        (re.compile(r'[^;"\s]*/include/python3\.\d+'), sysconfig.get_paths()["include"]),
    )
    changed = 0
    for path in sorted(Path(sys.prefix, "share").glob("*/cmake/*rosidl_generator_pyExport.cmake")):
        text = fixed = path.read_text()
        for pattern, value in replacements:
            fixed = pattern.sub(value, fixed)
        if fixed != text:
            path.write_text(fixed)
            changed += 1
    print(f"rewrote {changed} CMake files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
