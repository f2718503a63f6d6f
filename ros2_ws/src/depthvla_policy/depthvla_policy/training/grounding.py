"""The grounding loss: where is the object that the text names? For a small VLM, which knows no words yet.

One head of the VLM's own attention, in its middle layer, is taught to look from the tokens of the text at the patch
that holds the object, and the values of those tokens in the next layer to tell where that patch is. So the layers
behind and the action expert find it in the tokens of the text, and a linear map that is thrown away is all that is
added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.depthvla import DepthVLA, Prefix
from depthvla_policy.model.mixture import rotate, rotation

HEAD = 0


def grounded_layer(c: ModelConfig) -> int:
    """The middle layer: text and image have met before it, and layers behind it can use what is found."""
    return (c.layers - 1) // 2


class Grounding(nn.Module):
    """Cross-entropy of the attention from the text to the patches of the first camera, and the distance, in patches,
    of the place told from the right one.

    Raises:
        ValueError: the network has a single layer, whose VLM tokens look at nothing.
    """

    def __init__(self, model: DepthVLA) -> None:
        super().__init__()
        c = model.config
        if c.layers < 2:
            raise ValueError(f"loss.grounding_weight needs a network of at least 2 layers; this one has {c.layers}")
        self.layer, self.head_dim, self.grid = grounded_layer(c), c.head_dim, c.grid
        self.place = nn.Linear(c.head_dim, 2)
        self._queries: Tensor | None = None
        model.mixture.experts["vlm"].layers[self.layer].self_attn.q_proj.register_forward_hook(self._keep)

    def forward(self, prefix: Prefix, text_mask: Tensor, target: Tensor) -> Tensor:
        """A scalar for the `prefix` that the network made last. text_mask: (B, L). target: (B,) patch of the first
        camera; observations where it is -1 are left out.
        """
        known, patch = target >= 0, target.clamp(min=0)
        text = slice(self._queries.shape[1] - text_mask.shape[1], self._queries.shape[1])
        weights_BLP = self._log_attention(prefix, text)
        missed_BL = -weights_BLP.gather(2, patch[:, None, None].expand(*text_mask.shape, 1))[..., 0]
        values_BLH = prefix.cache[self.layer + 1][1][:, 0, text]
        row_column = torch.stack([patch // self.grid, patch % self.grid], dim=-1)
        off_BL = (self.place(values_BLH).float() - row_column[:, None]).norm(dim=-1)
        of_each = torch.where(text_mask, missed_BL + off_BL, 0.0).sum(1) / text_mask.sum(1)
        return torch.where(known, of_each, 0.0).sum() / known.sum().clamp(min=1)

    def _log_attention(self, prefix: Prefix, text: slice) -> Tensor:
        """(B, L, patches) logarithms of the weights that the text gives to the patches of the first camera."""
        valid = prefix.valid[:, : text.stop]
        positions = (valid.long().cumsum(1) - 1)[:, text]
        own = slice(HEAD * self.head_dim, (HEAD + 1) * self.head_dim)
        queries_BLH = rotate(self._queries[:, None, text, own], rotation(positions, self.head_dim))[:, 0]
        keys_BTH = prefix.cache[self.layer][0][:, 0, : text.stop]
        scores_BLT = (queries_BLH @ keys_BTH.mT).float() * self.head_dim**-0.5
        return scores_BLT.masked_fill(~valid[:, None], -torch.inf).log_softmax(-1)[..., : self.grid**2]

    def _keep(self, _: nn.Module, __: tuple, queries_BTX: Tensor) -> None:
        self._queries = queries_BTX
