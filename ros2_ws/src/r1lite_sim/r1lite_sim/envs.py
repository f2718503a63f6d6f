"""Gymnasium environments around the simulation: one step is one control period of the robot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import CustomSpaceError
from gymnasium.vector.utils import create_shared_memory

from depthvla_policy.policy.images import decode_jpeg
from r1lite_description import robot as robots
from r1lite_description.robot import Robot
from r1lite_sim.images import encode_jpeg
from r1lite_sim.scene.table import SCENE_CAMERA
from r1lite_sim.simulation import Simulation

SUCCESS_HOLD_S = 0.5  # an episode ends when success was held for so long
INSTRUCTION_LENGTH = 200
PRINTABLE = "".join(chr(code) for code in range(32, 127))


class Instruction(spaces.Text):
    def __init__(self) -> None:
        super().__init__(INSTRUCTION_LENGTH, charset=PRINTABLE)


@create_shared_memory.register(Instruction)
def _refuse_shared_memory(space: Instruction, n: int = 1, ctx=None):
    # Gymnasium 1.4 reads texts from shared memory once, before there are any: every instruction would be blank.
    raise CustomSpaceError("instructions do not go through shared memory: vector_kwargs={'shared_memory': False}")


class RenderedImages(Mapping):
    """Images of the present moment by camera, each rendered when it is asked for: before the next step."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._moment = (simulation.seed, simulation.time_s)
        self._names = [camera.name for camera in simulation.robot.cameras]

    def __getitem__(self, camera: str) -> np.ndarray:
        if camera not in self._names:
            raise KeyError(camera)
        if (self._simulation.seed, self._simulation.time_s) != self._moment:
            raise RuntimeError(f"{camera} is asked for an image of {self._moment[1]:.3f} s, which has passed")
        return decode_jpeg(encode_jpeg(self._simulation.render(camera)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class TaskEnv(gymnasium.Env):
    """A task of the simulated robot.

    Action: (14,) absolute joint targets [rad] and gripper openings [mm], in `Robot` order; targets outside the limits
    are clipped, as the robot's controllers do with what a policy asks for. Observation: `images` by camera, after the
    JPEG compression that a policy also meets on the robot's topics, `state` (14,) and `instruction`.
    Reward: increase of the task's progress. Terminated when success was held for half a second,
    truncated after `max_episode_s`, by default the task's own limit.

    Rendering is most of a step. With `render_images_on_demand` set, `images` is a `RenderedImages` and whoever looks at
    few of them waits for few.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(
        self,
        task: str = "lift",
        *,
        task_options: dict | None = None,
        robot: Robot | None = None,
        image_width: int = 320,
        image_height: int = 180,
        max_episode_s: float | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode is {render_mode!r}; allowed: None, {', '.join(self.metadata['render_modes'])}"
            )
        self.render_mode = render_mode
        self.robot = robot or robots.load()
        self.simulation = Simulation(
            self.robot, task, task_options=task_options, image_width=image_width, image_height=image_height
        )
        self.max_episode_s = self.simulation.task.time_limit_s if max_episode_s is None else max_episode_s
        image = spaces.Box(0, 255, (image_height, image_width, 3), np.uint8)
        # The servos may overshoot a limit by a little, and an open gripper reads more than its nominal range.
        state_max = np.where(self.robot.gripper_mask, self.robot.gripper_feedback_max_mm, self.robot.position_max + 0.1)
        state_min = self.robot.position_min - np.where(self.robot.gripper_mask, 5.0, 0.1)
        self.observation_space = spaces.Dict(
            {
                "images": spaces.Dict({camera.name: image for camera in self.robot.cameras}),
                "state": spaces.Box(state_min, state_max, dtype=np.float64),
                "instruction": Instruction(),
            }
        )
        self.action_space = spaces.Box(self.robot.position_min, self.robot.position_max, dtype=np.float64)
        self._held_s = 0.0
        self.render_images_on_demand = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Stage the scene of `seed`, or a drawn one. `options` change the task, for example {"colour": "green"}.

        Raises:
            ValueError: an option that the task does not take.
        """
        super().reset(seed=seed)
        scene = int(self.np_random.integers(2**31)) if seed is None else seed
        self.simulation.reset(scene, **(options or {}))
        self._held_s = 0.0
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Command `action` and let one control period pass.

        Raises:
            ValueError: an action of the wrong shape, or one that is not finite.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.robot.size,) or not np.all(np.isfinite(action)):
            raise ValueError(f"action must be {self.robot.size} finite numbers, got {action}")
        before = self.simulation.progress()
        self.simulation.command(np.clip(action, self.robot.position_min, self.robot.position_max))
        self.simulation.step(self.robot.period_s)
        self._held_s = self._held_s + self.robot.period_s if self.simulation.success() else 0.0
        reward = self.simulation.progress() - before
        terminated = self._held_s >= SUCCESS_HOLD_S
        truncated = not terminated and self.simulation.time_s >= self.max_episode_s
        return self._observation(), reward, terminated, truncated, self._info()

    def render(self) -> np.ndarray | None:
        """(480, 640, 3) uint8 RGB of an onlooker's view in render mode rgb_array."""
        return self.simulation.render(SCENE_CAMERA) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.simulation.close()

    def _observation(self) -> dict:
        images = RenderedImages(self.simulation)
        if not self.render_images_on_demand:
            images = dict(images)
        return {"images": images, "state": self.simulation.state(), "instruction": self.simulation.instruction}

    def _info(self) -> dict:
        return {
            "success": self.simulation.success(),
            "progress": self.simulation.progress(),
            "seed": self.simulation.seed,
        }
