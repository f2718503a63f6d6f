"""A MuJoCo Galaxea R1 Lite: Gymnasium environments, scripted experts and a node that speaks the robot's topics.

Importing the package chooses an off-screen GL, which MuJoCo reads at its first import, and registers the environments.
"""

from __future__ import annotations

import ctypes.util
import logging
import os

import gymnasium

LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}  # kinds of off-screen GL, in the order in which they are tried


def off_screen_gl(wanted: str) -> str:
    """The kind to use where the shell says `wanted`: that one where it is off-screen and here, else the first that is.

    A shell may name a window's GL, for MuJoCo's own viewer, or switch it off: no image is rendered in a window here.
    """
    here = [kind for kind, library in LIBRARIES.items() if ctypes.util.find_library(library)]
    chosen = next((kind for kind in (wanted.strip().lower(), *here) if kind in here), "egl")
    if wanted and chosen != wanted.strip().lower():
        logging.getLogger(__name__).warning("MUJOCO_GL is %r; images are rendered off screen, with %s", wanted, chosen)
    return chosen


os.environ["MUJOCO_GL"] = off_screen_gl(os.environ.get("MUJOCO_GL", ""))
os.environ["PYOPENGL_PLATFORM"] = os.environ["MUJOCO_GL"]  # MuJoCo refuses any other
# Software GL on one thread: more do not make a small image faster, they only take cores from the control loop.
os.environ.setdefault("LP_NUM_THREADS", "1")

ENVIRONMENTS = {
    "Lift-v0": "lift",
    "Touch-v0": "touch",
    "BlocksStacking-v0": "blocks_stacking",
    "TableBussing-v0": "table_bussing",
    "MicrowaveOperation-v0": "microwave_operation",
}
for _name, _task in ENVIRONMENTS.items():
    gymnasium.register(id=f"r1lite_sim/{_name}", entry_point="r1lite_sim.envs:TaskEnv", kwargs={"task": _task})
