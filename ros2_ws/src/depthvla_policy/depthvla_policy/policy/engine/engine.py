"""Chooses and keeps the program for an observation; on a GPU each is recorded once as a CUDA graph and replayed.

A program is made for a number of cameras and a length of text, so missing cameras and padding cost nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from depthvla_policy.model.depthvla import DepthVLA, Inputs
from depthvla_policy.policy.engine.fold import fold
from depthvla_policy.policy.engine.program import Parts, Program, Shape

# A graph takes a second to record and memory to keep: on a GPU texts of similar length share one.
TEXT_BUCKET = {"cuda": 8, "cpu": 1}
WARM_UPS = 3  # before a graph is recorded: libraries choose their kernels and make their workspaces


class Engine:
    """Samples chunks like `DepthVLA.sample`, one observation at a time. `model` is folded in place and still works."""

    def __init__(self, model: DepthVLA, text_bucket: int | None = None) -> None:
        """text_bucket: texts are padded to a multiple of this; None takes what suits the device.

        Raises ValueError for a network whose prefixes see one another (ablation iv), which has no program.
        """
        if not self.can_run(model):
            raise ValueError(f"prefix_attention is {model.config.prefix_attention!r}; the engine runs 'blockwise' only")
        fold(model)
        self._model, self._parts = model, Parts.of(model)
        self._device = model.action_in_proj.weight.device
        self._bucket = text_bucket or TEXT_BUCKET[self._device.type]
        self._programs: dict[Shape, Program] = {}
        self._graphs: dict[Shape, torch.cuda.CUDAGraph] = {}
        # One for all graphs: they never run at the same time, and what they give is copied at once.
        self._memory = torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None

    @staticmethod
    def can_run(model: DepthVLA) -> bool:
        return model.config.prefix_attention == "blockwise"

    def sample(self, inputs: Inputs, noise: Tensor, *, depth: bool = False) -> tuple[Tensor, Tensor | None]:
        """Integrate `noise` (1, horizon, action_dim) to a chunk; log depth (1, C, h, w) too when asked for.

        A camera that is missing has no depth in the result: what is there comes in the order of the cameras.

        Raises:
            ValueError: the batch is not one, or no camera is there.
        """
        if len(noise) != 1:
            raise ValueError(f"the batch is {len(noise)}; the engine runs one observation at a time")
        cameras = list(range(inputs.images.shape[1]))
        if inputs.image_mask is not None:
            cameras = torch.nonzero(inputs.image_mask[0]).flatten().tolist()
        if not cameras:
            raise ValueError("no camera is there")
        length = int(inputs.text_mask.sum())
        shape = self._shape(len(cameras), length, depth)
        program = self._program(shape)
        program.load(inputs, noise, cameras, length)
        self._run(shape, program)
        log_depth = program.log_depth if depth else None
        return program.chunk.clone()[None], None if log_depth is None else log_depth.clone()

    def prepare(self) -> None:
        """On a GPU, record the graphs of all lengths of text with all cameras, so that no chunk waits for one."""
        if self._device.type != "cuda":
            return
        c = self._model.config
        for length in range(1, c.max_text_tokens + 1, self._bucket):
            for depth in {False, c.depth_size > 0}:
                shape = self._shape(c.cameras, length, depth)
                self._run(shape, self._program(shape))

    def _shape(self, cameras: int, length: int, depth: bool) -> Shape:
        text = min(-(-length // self._bucket) * self._bucket, self._model.config.max_text_tokens)
        return Shape(cameras, text, self._bucket > 1, depth)

    def _program(self, shape: Shape) -> Program:
        if shape not in self._programs:
            self._programs[shape] = Program(self._model, self._parts, shape)
        return self._programs[shape]

    def _run(self, shape: Shape, program: Program) -> None:
        if self._device.type != "cuda":
            program.run()
            return
        if shape not in self._graphs:
            self._graphs[shape] = self._record(program)
        self._graphs[shape].replay()

    def _record(self, program: Program) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                program.run()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            program.run()
        return graph
