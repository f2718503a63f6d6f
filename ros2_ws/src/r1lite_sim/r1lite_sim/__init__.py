"""A MuJoCo Galaxea R1 Lite: Gymnasium environments, a scripted expert and a node that speaks the robot's topics.

Importing the package chooses an off-screen GL, which MuJoCo reads at its first import, and registers the environments.
"""

from __future__ import annotations

import ctypes.util
import os

import gymnasium

os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "osmesa")
# Software GL on one thread: more do not make a small image faster, they only take cores from the control loop.
os.environ.setdefault("LP_NUM_THREADS", "1")

gymnasium.register(id="r1lite_sim/Lift-v0", entry_point="r1lite_sim.envs:TaskEnv", kwargs={"task": "lift"})
