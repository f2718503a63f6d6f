"""DepthVLA: a VLM, a depth expert and a flow-matching action expert in one mixture of transformers.

Tokens in order: VLM = cameras' SigLIP tokens then text; depth = cameras' DINOv2 tokens; state = 1; action = horizon.
VLM and depth see only themselves (depth: every camera for itself), the state sees itself and both, actions see
everything (paper Fig. 2). So both prefixes and the state run once an observation, and every integration step runs the
action tokens alone.

Axes: B batch, C cameras, L text tokens, T tokens, D width.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.encoders import DinoEncoder, SiglipEncoder, depth_image
from depthvla_policy.model.flow import integrate, time_embedding, upcast
from depthvla_policy.model.mixture import Cache, Mixture, Stream
from depthvla_policy.model.realtime import continue_chunk

# Parameters of the depth expert, by the beginning of their names.
DEPTH_PARTS = ("depth_encoder.", "mixture.experts.depth.", "depth_head.")


@dataclass(frozen=True)
class Inputs:
    """A batch of observations.

    images: (B, C, 3, image_size, image_size) in [0, 1]. text: (B, L) token ids; text_mask: (B, L) bool, True where
    real. state: (B, state_dim), normalised. image_mask: (B, C) bool, False where a camera is missing; None means all
    are there. depth_m: (B, C, image_size, image_size) metres, only for a network that takes true depth.
    """

    images: Tensor
    text: Tensor
    text_mask: Tensor
    state: Tensor
    image_mask: Tensor | None = None
    depth_m: Tensor | None = None


@dataclass(frozen=True)
class Prefix:
    """What the action tokens need of an observation.

    cache: keys and values of VLM, depth and state. valid: (B, S) bool, which keys are real. offset: (B,) position of
    the first action. vlm: (B, T, D) output of the VLM expert, or None when nobody asked for it. log_depth: (B, C, h, w)
    log metres, or None.
    """

    cache: Cache
    valid: Tensor
    offset: Tensor
    vlm: Tensor | None
    log_depth: Tensor | None

    def detach(self) -> Prefix:
        """The same without gradients, so that a loss behind it does not reach VLM, depth and state."""
        cache = [(k.detach(), v.detach()) for k, v in self.cache]
        return Prefix(cache, self.valid, self.offset, self.vlm, self.log_depth)

    def repeat(self, n: int) -> Prefix:
        """Every observation `n` times in a row, so that one prefix serves several noise draws. Outputs are dropped."""
        cache = [(k.repeat_interleave(n, dim=0), v.repeat_interleave(n, dim=0)) for k, v in self.cache]
        return Prefix(cache, self.valid.repeat_interleave(n, 0), self.offset.repeat_interleave(n, 0), None, None)


class DepthVLA(nn.Module):
    """The network. Images, ids and normalised vectors in; normalised action chunks and log depth out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = c = config
        width = c.action.width
        experts = {"vlm": c.vlm, "action": c.action}
        if c.depth:
            experts["depth"] = c.depth.expert
        self.mixture = Mixture(experts, layers=c.layers, heads=c.heads, kv_heads=c.kv_heads, head_dim=c.head_dim)
        self.vision = SiglipEncoder(c.vision, c.image_size, c.patch_size, c.vlm.width)
        self.embed_tokens = nn.Embedding(c.vocab_size, c.vlm.width)
        if c.depth:
            self.depth_encoder = DinoEncoder(c.depth.encoder, c.image_size, c.patch_size)
            if c.depth.predicts:
                self.depth_head = nn.Linear(c.depth.expert.width, c.depth.head_pixels**2)
        self.state_proj = nn.Linear(c.state_dim, width)
        self.action_in_proj = nn.Linear(c.action_dim, width)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)
        self.action_out_proj = nn.Linear(width, c.action_dim)
        nn.init.normal_(self.embed_tokens.weight, std=c.vlm.width**-0.5)

    @torch.no_grad()
    def sample(
        self,
        inputs: Inputs,
        noise: Tensor,
        *,
        depth: bool = False,
        committed: Tensor | None = None,
        delay: int = 0,
        overlap: int | None = None,
        method: str = "guided",
    ) -> tuple[Tensor, Tensor | None]:
        """Integrate `noise` (B, horizon, action_dim) to a chunk of the same shape; log depth too when asked for.

        With `committed` (B, horizon, action_dim) the chunk continues another: see `realtime.continue_chunk`. `overlap`
        is the whole horizon when it is not given.
        """
        prefix = self.prefix(inputs, depth=depth)

        def velocity(x: Tensor, tau: Tensor) -> Tensor:
            return self.velocity(prefix, x, tau)

        steps = self.config.euler_steps
        if committed is None:
            return integrate(velocity, noise, steps), prefix.log_depth
        overlap = noise.shape[1] if overlap is None else overlap
        chunk = continue_chunk(velocity, noise, steps, committed=committed, delay=delay, overlap=overlap, method=method)
        return chunk, prefix.log_depth

    def prefix(self, inputs: Inputs, *, depth: bool = False, vlm: bool = False) -> Prefix:
        """Run everything that does not depend on the noisy actions. `depth` and `vlm` ask for those outputs."""
        streams, valid = self._prefix_streams(inputs)
        silent = frozenset(name for name, wanted in (("vlm", vlm), ("depth", depth)) if not wanted)
        if self.config.prefix_attention == "joint":
            keys = torch.cat(list(valid.values()), dim=1)
            outputs, cache = self.mixture(streams, keys[:, None, None], keys_only=silent)
        else:
            outputs, parts = {}, []
            for name, stream in streams.items():
                if name == "depth" and self.config.cameras_apart:
                    out, part = self._each_camera(stream, inputs.images.shape[1], silent)
                else:
                    # The mask is only there for padding and missing cameras; without any, attention runs mask-free.
                    mask = None if name == "depth" and inputs.image_mask is None else valid[name][:, None, None]
                    out, part = self.mixture({name: stream}, mask, keys_only=silent)
                outputs.update(out)
                parts.append(part)
            cache = [
                (torch.cat([k for k, _ in layer], dim=2), torch.cat([v for _, v in layer], dim=2))
                for layer in zip(*parts, strict=True)
            ]
        state = self._state_stream(inputs, valid)
        keys = torch.cat([*valid.values(), torch.ones_like(state.positions, dtype=torch.bool)], dim=1)
        _, cache = self.mixture({"action": state}, keys[:, None, None], cache, keys_only=frozenset({"action"}))
        return Prefix(
            cache=cache,
            valid=keys,
            offset=state.positions[:, 0] + 1,
            vlm=outputs.get("vlm"),
            log_depth=self._log_depth(outputs),
        )

    def velocity(self, prefix: Prefix, actions: Tensor, tau: Tensor) -> Tensor:
        """Velocity (B, horizon, action_dim), from noise to action, at the noisy `actions` (B, horizon, action_dim).

        tau: (B,), 0 at noise and 1 at the action; or (B, horizon), a time of its own for every step.
        """
        stream = self._action_stream(prefix.offset, actions, tau)
        horizon = actions.shape[1]
        mask = F.pad(prefix.valid, (0, horizon), value=True)[:, None, None]
        outputs, _ = self.mixture({"action": stream}, mask, prefix.cache)
        return self._velocity_head(outputs["action"])

    def joint_velocity(self, inputs: Inputs, actions: Tensor, tau: Tensor) -> tuple[Tensor, Tensor | None]:
        """The definition of the network: all tokens in one pass under the block-wise mask, nothing cached.

        Returns the velocity (B, horizon, action_dim) and log depth (B, C, h, w) or None. `prefix` and `velocity` give
        the same numbers at a fraction of the cost.
        """
        streams, valid = self._prefix_streams(inputs)
        state = self._state_stream(inputs, valid)
        action = self._action_stream(state.positions[:, 0] + 1, actions, tau)
        streams["action"] = Stream(
            torch.cat([state.x, action.x], dim=1), torch.cat([state.positions, action.positions], dim=1)
        )
        outputs, _ = self.mixture(streams, self.block_mask(valid), keys_only=frozenset({"vlm"}))
        return self._velocity_head(outputs["action"][:, 1:]), self._log_depth(outputs)

    def predict_depth(self, images: Tensor) -> Tensor:
        """Log metres (B, C, depth_size, depth_size) of images (B, C, 3, image_size, image_size) in [0, 1], by the depth
        expert alone: as many images as there are.
        """
        stream = self._depth_stream(images)
        if self.config.cameras_apart:
            outputs, _ = self._each_camera(stream, images.shape[1], frozenset())
        else:
            outputs, _ = self.mixture({"depth": stream}, None)
        return self._log_depth(outputs)

    def block_mask(self, valid: dict[str, Tensor]) -> Tensor:
        """(B, 1, T, T) bool over VLM, depth, state and action tokens; `valid` holds (B, T) of the prefixes."""
        c, joint = self.config, self.config.prefix_attention == "joint"
        together = c.grid**2 if c.cameras_apart else c.image_tokens  # depth tokens that see one another
        device = next(iter(valid.values())).device
        block, rank = [], []
        for name, keys in valid.items():
            tokens = range(keys.shape[1])
            block += [0 if name == "vlm" or joint else 1 + token // together for token in tokens]
            rank += [0] * len(tokens)
        block += [-1] + [-2] * c.horizon
        rank += [1] + [2] * c.horizon
        block_T, rank_T = torch.tensor(block, device=device), torch.tensor(rank, device=device)
        allowed = (block_T[:, None] == block_T) | (rank_T[:, None] > rank_T)
        keys = F.pad(torch.cat(list(valid.values()), dim=1), (0, 1 + c.horizon), value=True)
        return allowed & keys[:, None, None]

    def _each_camera(self, stream: Stream, cameras: int, silent: frozenset[str]) -> tuple[dict[str, Tensor], Cache]:
        """The depth expert on the tokens of each camera for itself; outputs and cache are those of all of them."""
        apart = Stream(*(part.unflatten(1, (cameras, -1)).flatten(0, 1) for part in (stream.x, stream.positions)))
        outputs, cache = self.mixture({"depth": apart}, None, keys_only=silent)
        outputs = {name: x.unflatten(0, (-1, cameras)).flatten(1, 2) for name, x in outputs.items()}

        def together(keys: Tensor) -> Tensor:
            return keys.unflatten(0, (-1, cameras)).transpose(1, 2).flatten(2, 3)

        return outputs, [(together(k), together(v)) for k, v in cache]

    def _prefix_streams(self, inputs: Inputs) -> tuple[dict[str, Stream], dict[str, Tensor]]:
        """VLM and depth tokens with their rotary positions, and which of them are real."""
        B, C = inputs.images.shape[:2]
        images = inputs.images.flatten(0, 1)
        tokens = self.config.grid**2
        cameras = inputs.image_mask if inputs.image_mask is not None else inputs.text_mask.new_ones(B, C)
        image_valid = cameras.repeat_interleave(tokens, dim=1)

        vision = self.vision(images).reshape(B, C * tokens, -1)
        text = self.embed_tokens(inputs.text) * math.sqrt(self.config.vlm.width)
        vlm_valid = torch.cat([image_valid, inputs.text_mask], dim=1)
        # Padding takes no position, as in pi0.
        positions = vlm_valid.long().cumsum(1) - 1
        streams = {"vlm": Stream(torch.cat([vision, text.to(vision.dtype)], dim=1), positions)}
        valid = {"vlm": vlm_valid}
        if self.config.depth:
            streams["depth"] = self._depth_stream(
                depth_image(inputs.depth_m) if self.config.takes_depth else inputs.images
            )
            valid["depth"] = image_valid
        return streams, valid

    def _depth_stream(self, images: Tensor) -> Stream:
        """The tokens of images (B, C, 3, image_size, image_size)."""
        B, C = images.shape[:2]
        tokens = self.config.grid**2
        # Every camera counts from 0: the depth expert was pre-trained on single images.
        positions = torch.arange(tokens, device=images.device).repeat(C).expand(B, -1)
        return Stream(self.depth_encoder(images.flatten(0, 1)).reshape(B, C * tokens, -1), positions)

    def _state_stream(self, inputs: Inputs, valid: dict[str, Tensor]) -> Stream:
        positions = valid["vlm"].long().sum(1, keepdim=True)
        return Stream(self.state_proj(inputs.state)[:, None], positions)

    def _action_stream(self, offset: Tensor, actions: Tensor, tau: Tensor) -> Stream:
        embedded = self.action_in_proj(actions.to(self.action_in_proj.weight.dtype))
        time = time_embedding(tau.reshape(len(tau), -1), embedded.shape[-1]).to(embedded.dtype)
        x = torch.cat([embedded, time.expand_as(embedded)], dim=-1)
        x = self.action_time_mlp_out(F.silu(self.action_time_mlp_in(x)))
        return Stream(x, offset[:, None] + torch.arange(actions.shape[1], device=actions.device))

    def _velocity_head(self, out: Tensor) -> Tensor:
        # The published head predicts noise - action; ours is the paper's action - noise. The integrator works in
        # float32.
        head, kind = self.action_out_proj, out.device.type
        # Tensors of device "meta", on which operations are counted, know no autocast.
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            return -F.linear(upcast(out), upcast(head.weight), upcast(head.bias))

    def _log_depth(self, outputs: dict[str, Tensor]) -> Tensor | None:
        if "depth" not in outputs or not self.config.depth.predicts:
            return None
        return self.log_depth(outputs["depth"])

    def log_depth(self, out: Tensor) -> Tensor:
        """Log metres (B, C, depth_size, depth_size) from the depth expert's outputs (B, C * tokens, D)."""
        grid, pixels = self.config.grid, self.config.depth.head_pixels
        patches = self.depth_head(out).view(out.shape[0], -1, grid, grid, pixels, pixels)
        return patches.permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)
