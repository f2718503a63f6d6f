"""The shell's choice of an OpenGL is for windows, too; the simulator renders off screen whatever it says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import r1lite_sim

CODE = """
from r1lite_description import robot
from r1lite_sim.simulation import Simulation
simulation = Simulation(robot.load(), "lift", image_width=64, image_height=36)
simulation.reset(1000)
print(simulation.render("head").shape)
"""


@pytest.fixture
def libraries(monkeypatch):
    there = {"EGL", "OSMesa"}
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so" if name in there else None)
    return there


@pytest.mark.parametrize("wanted", ["", "glfw", "glx", "GLFW", "on", "disable", "0", "angle"])
def test_any_other_kind_is_replaced(libraries, wanted, caplog):
    assert r1lite_sim.off_screen_gl(wanted) == "egl"
    assert ("MUJOCO_GL" in caplog.text) == bool(wanted)
    libraries.remove("EGL")
    assert r1lite_sim.off_screen_gl(wanted) == "osmesa"


def test_an_off_screen_kind_is_kept_where_its_library_is(libraries, caplog):
    assert r1lite_sim.off_screen_gl("osmesa") == "osmesa" and r1lite_sim.off_screen_gl(" EGL ") == "egl"
    assert caplog.text == ""
    libraries.remove("OSMesa")
    assert r1lite_sim.off_screen_gl("osmesa") == "egl"


@pytest.mark.parametrize(
    "shell",
    [
        {"MUJOCO_GL": ""},
        {"MUJOCO_GL": "glfw", "DISPLAY": ":97"},
        {"MUJOCO_GL": "nonsense"},
        {"MUJOCO_GL": "disable"},
        {"PYOPENGL_PLATFORM": "x11"},
    ],
    ids=lambda shell: " ".join(f"{name}={value}" for name, value in shell.items()),
)
def test_images_are_rendered_whatever_the_shell_says(shell):
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=os.environ | shell)
    assert done.returncode == 0 and "(36, 64, 3)" in done.stdout, done.stderr


def test_a_driver_that_fails_is_an_error_that_names_the_variable(monkeypatch):
    from r1lite_description import robot
    from r1lite_sim.simulation import Simulation

    simulation = Simulation(robot.load(), "lift", image_width=64, image_height=36)
    simulation.reset(1000)
    monkeypatch.setattr("mujoco.Renderer", lambda *_, **__: (_ for _ in ()).throw(ImportError("no EGL display")))
    with pytest.raises(ValueError, match="MUJOCO_GL='egl'.*no EGL display.*allowed: egl, osmesa"):
        simulation.render("head")
