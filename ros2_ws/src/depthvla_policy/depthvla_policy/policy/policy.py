"""The deployed policy: an observation in robot units in, an action chunk in robot units out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from depthvla_policy.model.depthvla import DepthVLA, Inputs
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.checkpoint import CheckpointConfig
from depthvla_policy.policy.engine import Engine
from depthvla_policy.policy.images import ImageFit
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.prompt import Prompt
from r1lite_description import robot as robot_description


@dataclass(frozen=True)
class Prediction:
    """One inference.

    actions: (horizon, size) float64, absolute targets in robot units; step k is due k periods after the observation.
    depth_m: camera -> (h, w) float32 metres along the optical axis, in the geometry of `Policy.image_fit`; empty unless
    asked for. preprocess_s, inference_s: wall time.
    """

    actions: np.ndarray
    depth_m: dict[str, np.ndarray]
    preprocess_s: float
    inference_s: float


class Policy:
    """A checkpoint, ready to be asked. Not thread-safe: one thread calls `infer`."""

    def __init__(
        self,
        config: CheckpointConfig,
        model: DepthVLA,
        stats: Normaliser,
        prompt: Prompt,
        model_id: str,
        engine: Engine | None = None,
    ) -> None:
        """engine: samples chunks that continue no other. Without one, and for those that do, the network does."""
        self.config = config
        self.model = model
        self.engine = engine
        self.stats = stats
        self.prompt = prompt
        self.model_id = model_id
        self.cameras = config.policy.cameras
        self.rectified = config.policy.rectified
        self.horizon = config.model.horizon
        self.period_s = 1.0 / config.policy.control_rate_hz
        self.image_fit = ImageFit(config.model.image_size, config.model.image_fit)
        self.depth_size = config.model.depth_size
        self._generator = torch.Generator().manual_seed(torch.seed())

    @property
    def has_depth(self) -> bool:
        """Whether depth is predicted."""
        return self.depth_size > 0

    @property
    def takes_depth(self) -> bool:
        """Whether observations must come with true depth."""
        return self.config.model.takes_depth

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "cpu",
        robot: robot_description.Robot | None = None,
        *,
        engine: bool = True,
    ) -> Policy:
        """Load a checkpoint folder: float32 on a CPU, bfloat16 on a GPU. `engine`: use one where the network has any.

        Raises:
            FileNotFoundError: the folder or a file in it does not exist.
            ValueError: files do not fit one another, the checkpoint is for another robot, or there is no such device.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"checkpoint {folder} does not exist")
        config = CheckpointConfig.read(folder)
        robot = robot or robot_description.load()
        if config.policy.joints != robot.joint_names:
            raise ValueError(
                f"checkpoint {folder} was trained for joints {list(config.policy.joints)};"
                f" robot {robot.name!r} has {list(robot.joint_names)}"
            )
        unknown = sorted(set(config.policy.cameras) - {camera.name for camera in robot.cameras})
        if unknown:
            raise ValueError(f"checkpoint {folder} needs cameras {unknown}, which robot {robot.name!r} does not have")
        try:
            kind = torch.device(device).type
        except RuntimeError as error:
            raise ValueError(f"device is {device!r}; allowed: cpu, cuda, cuda:N") from error
        if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
            raise ValueError(
                f"device {device!r} is not available here; available: cpu" + ", cuda" * torch.cuda.is_available()
            )
        stats = Normaliser.load(folder / checkpoint.STATS, horizon=config.model.horizon, size=robot.size)
        prompt = Prompt.load(folder / checkpoint.TOKENIZER, config.model.max_text_tokens)
        dtype = torch.bfloat16 if kind == "cuda" else torch.float32
        model = checkpoint.load_model(folder, config.model, device, dtype)
        fast = Engine(model) if engine and Engine.can_run(model) else None
        return cls(config, model, stats, prompt, f"{config.name}@{checkpoint.digest(folder)}", fast)

    def prepare(self) -> None:
        """Do now what would otherwise delay a chunk: see `Engine.prepare`."""
        if self.engine:
            self.engine.prepare()

    def infer(
        self,
        observation: Observation,
        *,
        depth: bool = False,
        fitted: Mapping[str, np.ndarray] | None = None,
        seed: int | None = None,
        committed: np.ndarray | None = None,
        delay: int = 0,
        method: str = "guided",
    ) -> Prediction:
        """Predict a chunk. `seed` fixes the noise the integration starts from.

        fitted: camera -> its image after `image_fit`, where that was done already.
        committed: (n, size) with n up to the horizon, absolute targets in robot units that the chunk in execution has
        for the steps of this one, the first `delay` of which will have been executed: the new chunk continues them (see
        model/realtime.py for `method`).

        Raises:
            ValueError: a camera is missing; an image, the state, the instruction or the committed steps are not what
            the
                policy takes.
        """
        begin = time.perf_counter()
        inputs = self.inputs(observation, fitted)
        c = self.config.model
        continuation = {}
        if committed is not None:
            steps = self._normalised_steps(committed, observation.state).to(inputs.images.device)
            continuation = {"committed": steps, "delay": delay, "overlap": len(committed), "method": method}
        generator = self._generator if seed is None else torch.Generator().manual_seed(seed)
        noise = torch.randn(1, c.horizon, c.action_dim, generator=generator).to(inputs.images.device)
        ready = time.perf_counter()
        sample = self.engine.sample if self.engine and committed is None else self.model.sample
        chunk, log_depth = sample(inputs, noise, depth=depth and self.has_depth, **continuation)
        size = len(self.config.policy.joints)
        normalised = chunk[0, :, :size].double().cpu().numpy()
        depth_m = {}
        if log_depth is not None:
            maps = log_depth[0].float().exp().cpu().numpy()
            depth_m = dict(zip(self.cameras, maps, strict=True))
        done = time.perf_counter()
        actions = self.stats.absolute_actions(normalised, observation.state)
        return Prediction(actions, depth_m, preprocess_s=ready - begin, inference_s=done - ready)

    def _normalised_steps(self, committed: np.ndarray, state: np.ndarray) -> torch.Tensor:
        """Absolute steps (n, size) as a normalised chunk (1, horizon, action_dim); what lies behind them is their
        last.
        """
        size, c = len(self.config.policy.joints), self.config.model
        if committed.ndim != 2 or committed.shape[1] != size or not 1 <= len(committed) <= c.horizon:
            raise ValueError(f"committed steps have shape {committed.shape}; allowed: (1 to {c.horizon}, {size})")
        if not np.all(np.isfinite(committed)):
            raise ValueError("committed steps must be finite")
        whole = committed[np.minimum(np.arange(c.horizon), len(committed) - 1)]
        padded = np.zeros((1, c.horizon, c.action_dim), dtype=np.float32)
        padded[0, :, :size] = self.stats.actions(whole, state)
        return torch.from_numpy(padded)

    def inputs(self, observation: Observation, fitted: Mapping[str, np.ndarray] | None = None) -> Inputs:
        """The network's input for an observation, a batch of one. Arguments and errors are those of `infer`."""
        missing = [name for name in self.cameras if name not in observation.images]
        if missing:
            raise ValueError(f"the observation has no image of {missing}; it has {sorted(observation.images)}")
        state = np.asarray(observation.state, dtype=np.float64)
        size = len(self.config.policy.joints)
        if state.shape != (size,) or not np.all(np.isfinite(state)):
            raise ValueError(f"the state must be {size} finite numbers, got {state}")
        parameter = self.model.action_in_proj.weight
        if fitted is None:
            fitted = {name: self.image_fit.apply(observation.images[name]) for name in self.cameras}
        images = np.stack([fitted[name] for name in self.cameras])
        ids, mask = self.prompt.encode(observation.instruction)
        depth_m = None
        if self.takes_depth:
            known = observation.depth_m or {}
            missing = [name for name in self.cameras if name not in known]
            if missing:
                raise ValueError(f"the policy takes true depth and the observation has none of {missing}")
            maps = np.stack([self.image_fit.apply_depth(known[name], self.image_fit.size) for name in self.cameras])
            depth_m = torch.from_numpy(maps)[None].to(parameter.device)
        padded = np.zeros(self.config.model.state_dim)
        padded[:size] = self.stats.state(state)
        to = {"device": parameter.device, "dtype": parameter.dtype}
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)[None].to(parameter.device)
        return Inputs(
            images=pixels.to(parameter.dtype) / 255.0,
            text=torch.from_numpy(ids)[None].to(parameter.device),
            text_mask=torch.from_numpy(mask)[None].to(parameter.device),
            state=torch.from_numpy(padded)[None].to(**to),
            depth_m=depth_m,
        )
