"""A MuJoCo Galaxea R1 Lite: Gymnasium environments, scripted experts and a node that speaks the robot's topics.

Importing the package chooses an off-screen GL, which MuJoCo reads at its first import, and registers the environments.
"""

from __future__ import annotations

import ctypes.util
import os

import gymnasium

os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "osmesa")
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
