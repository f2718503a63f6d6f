"""Tensor names of published checkpoints, and what they are called in our network.

One table a layout, data only: reading files, checking shapes and making the tensors is `depthvla_policy.convert`'s
business. The tables are read in both directions, so the one that imports transformers' PI0 also exports to it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache

EMBEDDING = "embed_tokens.weight"
DEPTH_POSITIONS = "depth_encoder.tower.embeddings.position_embeddings"

# What a checkpoint brings or does not bring, as a whole; the prefixes of our names that belong to it.
PARTS = {
    "vlm": ("vision.", "embed_tokens.", "mixture.experts.vlm."),
    "action": (
        "mixture.experts.action.",
        "state_proj.",
        "action_in_proj.",
        "action_time_mlp_in.",
        "action_time_mlp_out.",
        "action_out_proj.",
    ),
    "depth_encoder": ("depth_encoder.",),
    "depth_decoder": ("mixture.experts.depth.", "depth_head."),
}

# {n} a layer's number, {p} weight or bias, {rest} whatever follows.
_PLACEHOLDERS = {"n": r"\d+", "p": "weight|bias", "rest": ".+"}

# In a pi0.5 the time goes through an MLP of its own into the action expert's norms (adaRMS).
_PI05 = re.compile(r"(model\.)?time_mlp_(in|out)\..+|.+norm\.dense\..+")


@dataclass(frozen=True)
class Rule:
    """One line of a table.

    foreign: template of the published name. ours: templates of our names; several where the published tensor holds
    them one after another along its first axis; none where the tensor is unused, and then `why` says so. fallback:
    this tensor only counts where no other gives the same name.
    """

    foreign: str
    ours: tuple[str, ...] = ()
    why: str = ""
    fallback: bool = False


@dataclass(frozen=True)
class Layout:
    """The names of one kind of checkpoint.

    parts: what such a checkpoint must bring whole. may_bring: parts it brings whole or not at all. optional: names of
    ours that it may lack.
    """

    name: str
    rules: tuple[Rule, ...]
    parts: tuple[str, ...]
    may_bring: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def find(self, key: str) -> tuple[Rule, tuple[str, ...]] | None:
        """The rule for a published name and our names for it; None when the table does not know it."""
        for rule in self.rules:
            if (fields := _match(rule.foreign, key)) is not None:
                return rule, tuple(template.format_map(fields) for template in rule.ours)
        return None

    def foreign(self, name: str, seen: Collection[Rule] = ()) -> str:
        """The published name of our tensor; of a fused one, the name of the whole.

        seen: rules to prefer where several give the name, those of a file's other tensors.

        Raises:
            KeyError: the layout has no such tensor.
        """
        for rule in sorted(self.rules, key=lambda rule: rule not in seen):
            for template in rule.ours:
                if (fields := _match(template, name)) is not None:
                    return rule.foreign.format_map(fields)
        raise KeyError(name)


def part_of(name: str) -> str:
    """The part that a tensor of ours belongs to."""
    return next(part for part, prefixes in PARTS.items() if name.startswith(prefixes))


def module_of(name: str) -> str:
    """The prefix in `PARTS` that a tensor of ours begins with."""
    return next(prefix for prefix in PARTS[part_of(name)] if name.startswith(prefix))


def recognise(keys: Iterable[str], layouts: Iterable[Layout]) -> Layout | None:
    """The layout that knows most of `keys`; None when none knows any."""
    keys = list(keys)
    known = {layout: sum(layout.find(key) is not None for key in keys) for layout in layouts}
    best = max(known, key=known.__getitem__)
    return best if known[best] else None


def only_in_pi05(keys: Iterable[str]) -> list[str]:
    """Those of `keys` that a pi0.5 has and a pi0 has not."""
    return [key for key in keys if _PI05.fullmatch(key)]


@cache
def _pattern(template: str) -> re.Pattern[str]:
    pattern = re.escape(template)
    for name, expression in _PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape("{" + name + "}"), f"(?P<{name}>{expression})")
    return re.compile(pattern)


def _match(template: str, key: str) -> dict[str, str] | None:
    match = _pattern(template).fullmatch(key)
    return match and match.groupdict()


def _under(prefix: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules for names that begin with `prefix` on top."""
    return tuple(replace(rule, foreign=prefix + rule.foreign) for rule in rules)


_TIED = "tied to the token embedding; the network writes no text"
_RECOMPUTED = "a buffer that is recomputed"


# A Gemma stack is named in the mixture as in transformers.
def _gemma(expert: str) -> tuple[Rule, ...]:
    return (
        Rule("layers.{n}.self_attn.rotary_emb.inv_freq", why=_RECOMPUTED),
        Rule("layers.{rest}", (f"mixture.experts.{expert}.layers.{{rest}}",)),
        Rule("norm.weight", (f"mixture.experts.{expert}.norm.weight",)),
    )


_TEXT = (Rule("embed_tokens.weight", (EMBEDDING,)), *_gemma("vlm"))
_LM_HEAD = (Rule("lm_head.weight", (EMBEDDING,), why=_TIED, fallback=True),)
_TOWER = (
    Rule("embeddings.position_ids", why=_RECOMPUTED),
    Rule("embeddings.{rest}", ("vision.tower.embeddings.{rest}",)),
    Rule("encoder.{rest}", ("vision.tower.encoder.{rest}",)),
    Rule("post_layernorm.{p}", ("vision.tower.post_layernorm.{p}",)),
)
_PROJECTOR = (Rule("multi_modal_projector.linear.{p}", ("vision.projector.{p}",)),)
# transformers 4 has `vision_model.` in the tower's names, 5 has not; both write either into files of other layouts.
_IMAGES_4 = (*_under("vision_tower.vision_model.", _TOWER), *_under("vision_tower.", _TOWER), *_PROJECTOR)
_IMAGES_5 = (*_under("vision_tower.", _TOWER), *_under("vision_tower.vision_model.", _TOWER), *_PROJECTOR)

PALIGEMMA_HUB = Layout(
    "PaliGemma, names of the hub",
    (*_under("language_model.model.", _TEXT), *_under("language_model.", _LM_HEAD), *_IMAGES_4),
    parts=("vlm",),
)
PALIGEMMA = Layout(
    "PaliGemma, names of transformers 5",
    (*_under("model.language_model.", _TEXT), *_LM_HEAD, *_under("model.", _IMAGES_5)),
    parts=("vlm",),
)

_NO_TOKENS = "the action expert reads no tokens"
_HEADS = tuple(
    Rule(f"{name}.{{p}}", (f"{name}.{{p}}",))
    for name in ("state_proj", "action_in_proj", "action_time_mlp_in", "action_time_mlp_out")
)
_OUT = (Rule("action_out_proj.{p}", ("action_out_proj.{p}",)),)
_OPENPI = (
    *_under("paligemma_with_expert.paligemma.model.language_model.", _TEXT),
    # So does save_pretrained of transformers' PI0 name them.
    *_under("paligemma_with_expert.paligemma.model.language_model.model.", _TEXT),
    *_under("paligemma_with_expert.paligemma.", (*_LM_HEAD, *_under("model.", _IMAGES_4))),
    # Old files of lerobot name it as the hub does.
    *_under("paligemma_with_expert.paligemma.", PALIGEMMA_HUB.rules),
    Rule("paligemma_with_expert.gemma_expert.model.embed_tokens.weight", why=_NO_TOKENS),
    Rule("paligemma_with_expert.gemma_expert.lm_head.weight", why=_NO_TOKENS),
    *_under("paligemma_with_expert.gemma_expert.model.", _gemma("action")),
    *_HEADS,
    *_OUT,
)

OPENPI = Layout("pi0, names of openpi", _OPENPI, parts=("vlm", "action"))
# Old files hold these as buffers of the policy.
_STATS = tuple(
    Rule(f"{name}.{{rest}}", why="normalisation statistics of the published policy; ours are in norm_stats.json")
    for name in ("normalize_inputs", "normalize_targets", "unnormalize_outputs")
)
LEROBOT = Layout("pi0, names of lerobot", (*_under("model.", _OPENPI), *_STATS), parts=("vlm", "action"))
TRANSFORMERS_PI0 = Layout(
    "pi0, names of transformers 5",
    (
        *_under("model.vlm.language_model.", _TEXT),
        *_under("model.vlm.", _IMAGES_5),
        Rule("model.dit.embed_tokens.weight", why=_NO_TOKENS),
        *_under("model.dit.", _gemma("action")),
        *_under("embed_action_time.", _HEADS),
        *_OUT,
    ),
    parts=("vlm", "action"),
)

_DINO = "depth_encoder.tower."
_LAYER = _DINO + "encoder.layer.{n}."
_DINOV2 = (
    # Up to transformers 5.17, and in files that save_pretrained writes.
    Rule("encoder.layer.{n}.attention.attention.query.{p}", (_LAYER + "attention.q_proj.{p}",)),
    Rule("encoder.layer.{n}.attention.attention.key.{p}", (_LAYER + "attention.k_proj.{p}",)),
    Rule("encoder.layer.{n}.attention.attention.value.{p}", (_LAYER + "attention.v_proj.{p}",)),
    Rule("encoder.layer.{n}.attention.output.dense.{p}", (_LAYER + "attention.o_proj.{p}",)),
    Rule("embeddings.{rest}", (_DINO + "embeddings.{rest}",)),
    Rule("encoder.{rest}", (_DINO + "encoder.{rest}",)),
    Rule("layernorm.{p}", (_DINO + "layernorm.{p}",)),
)
_DINOV2_ORIGINAL = (
    Rule("cls_token", (_DINO + "embeddings.cls_token",)),
    Rule("mask_token", (_DINO + "embeddings.mask_token",)),
    Rule("pos_embed", (DEPTH_POSITIONS,)),
    Rule("patch_embed.proj.{p}", (_DINO + "embeddings.patch_embeddings.projection.{p}",)),
    Rule("blocks.{n}.norm1.{p}", (_LAYER + "norm1.{p}",)),
    Rule("blocks.{n}.attn.qkv.{p}", tuple(_LAYER + f"attention.{x}_proj.{{p}}" for x in "qkv")),
    Rule("blocks.{n}.attn.proj.{p}", (_LAYER + "attention.o_proj.{p}",)),
    Rule("blocks.{n}.ls1.gamma", (_LAYER + "layer_scale1.lambda1",)),
    Rule("blocks.{n}.norm2.{p}", (_LAYER + "norm2.{p}",)),
    Rule("blocks.{n}.mlp.{rest}", (_LAYER + "mlp.{rest}",)),
    Rule("blocks.{n}.ls2.gamma", (_LAYER + "layer_scale2.lambda1",)),
    Rule("norm.{p}", (_DINO + "layernorm.{p}",)),
)
_NO_DPT = "Depth Anything's decoder; the depth expert takes its place"
_ENCODER = {
    "parts": ("depth_encoder",),
    # Only masked-image training reads it, and files without it exist.
    "optional": (_DINO + "embeddings.mask_token",),
}

DEPTH_ANYTHING = Layout(
    "Depth Anything V2, names of transformers",
    (*_under("backbone.", _DINOV2), Rule("neck.{rest}", why=_NO_DPT), Rule("head.{rest}", why=_NO_DPT)),
    **_ENCODER,
)
DEPTH_ANYTHING_ORIGINAL = Layout(
    "Depth Anything V2, original names",
    (*_under("pretrained.", _DINOV2_ORIGINAL), Rule("depth_head.{rest}", why=_NO_DPT)),
    **_ENCODER,
)
DINOV2 = Layout("DINOv2, names of transformers", _DINOV2, **_ENCODER)
DINOV2_ORIGINAL = Layout("DINOv2, original names", _DINOV2_ORIGINAL, **_ENCODER)

OWN_DEPTH = Layout(
    "our depth pre-training",
    tuple(
        Rule(prefix + "{rest}", (prefix + "{rest}",))
        for part in ("depth_encoder", "depth_decoder")
        for prefix in PARTS[part]
    )
    + tuple(
        Rule(prefix + "{rest}", why="not of the depth expert") for part in ("vlm", "action") for prefix in PARTS[part]
    ),
    parts=("depth_decoder",),
    may_bring=("depth_encoder",),
)

# Sources of a conversion, and the layouts each may come in.
LAYOUTS = {
    "vlm": (PALIGEMMA_HUB, PALIGEMMA),
    "pi0": (OPENPI, LEROBOT, TRANSFORMERS_PI0),
    "depth_encoder": (DEPTH_ANYTHING, DEPTH_ANYTHING_ORIGINAL, DINOV2, DINOV2_ORIGINAL),
    "depth_decoder": (OWN_DEPTH,),
}
