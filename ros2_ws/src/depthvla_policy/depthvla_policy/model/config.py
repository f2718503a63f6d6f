"""The dimensions of a DepthVLA network. A checkpoint's `config.json` fills these; `depth: null` gives pi0."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from r1lite_description import files

PREFIX_ATTENTION = ("blockwise", "joint")
DEPTH_STARTS = ("pretrained", "random")
DEPTH_INPUTS = ("image", "ground_truth")
DEPTH_ATTENTION = ("camera", "all")
IMAGE_FITS = ("pad", "crop")


@dataclass(frozen=True)
class EncoderConfig:
    """A vision transformer: width, layers, heads, MLP width."""

    width: int
    layers: int
    heads: int
    mlp: int


@dataclass(frozen=True)
class ExpertConfig:
    """What an expert has of its own. Heads, head width and layers are shared by all experts."""

    width: int
    mlp: int


@dataclass(frozen=True)
class DepthConfig:
    """The depth expert: DINOv2 encoder, decoder of the mixture's shape, linear head.

    head_pixels: depth values per token side; the map has (image_size / patch_size) * head_pixels pixels a side.
    attention: the depth tokens that a depth token sees: those of its own "camera", as in the expert's pre-training on
    single images, or "all".

    The rest are the paper's ablations (Tables III and IV). start: "random" leaves the expert out when training starts
    from a checkpoint (i). loss_weight: of SI-log beside the flow loss, 0 trains without it (ii). frozen: the expert is
    not trained and needs no depth labels (iii). input: "ground_truth" feeds the encoder true depth instead of the
    image, and there is no depth head (v). Ablation (iv) is `ModelConfig.prefix_attention`.
    """

    encoder: EncoderConfig
    expert: ExpertConfig
    head_pixels: int
    attention: str = "camera"
    start: str = "pretrained"
    loss_weight: float = 1.0
    frozen: bool = False
    input: str = "image"

    def __post_init__(self) -> None:
        if self.start not in DEPTH_STARTS:
            raise ValueError(f"depth.start is {self.start!r}; allowed: {', '.join(DEPTH_STARTS)}")
        if self.input not in DEPTH_INPUTS:
            raise ValueError(f"depth.input is {self.input!r}; allowed: {', '.join(DEPTH_INPUTS)}")
        if self.attention not in DEPTH_ATTENTION:
            raise ValueError(f"depth.attention is {self.attention!r}; allowed: {', '.join(DEPTH_ATTENTION)}")
        if not 0.0 <= self.loss_weight < float("inf"):
            raise ValueError(f"depth.loss_weight is {self.loss_weight}; it must be 0 or more")

    @property
    def predicts(self) -> bool:
        """Whether there is a depth head."""
        return self.input == "image"


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions of the network.

    image_size, patch_size: pixels; every camera image is square. image_fit: how a camera's image became square, "pad"
    or "crop" (policy/images.py). cameras: images per observation. state_dim, action_dim: entries of the state and of
    one action step. horizon: action steps of a chunk. prefix_attention: "blockwise" lets VLM and depth tokens see only
    their own stream (paper section III-A); "joint" lets all of the two see each other (paper Table III, iv).
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vlm: ExpertConfig
    action: ExpertConfig
    vision: EncoderConfig
    depth: DepthConfig | None
    image_size: int
    image_fit: str
    patch_size: int
    cameras: int
    vocab_size: int
    max_text_tokens: int
    state_dim: int
    action_dim: int
    horizon: int
    euler_steps: int = 10
    prefix_attention: str = "blockwise"

    def __post_init__(self) -> None:
        if self.prefix_attention not in PREFIX_ATTENTION:
            raise ValueError(f"prefix_attention is {self.prefix_attention!r}; allowed: {', '.join(PREFIX_ATTENTION)}")
        if self.image_fit not in IMAGE_FITS:
            raise ValueError(f"image_fit is {self.image_fit!r}; allowed: {', '.join(IMAGE_FITS)}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.depth and self.depth.encoder.width != self.depth.expert.width:
            raise ValueError(
                f"depth.encoder.width {self.depth.encoder.width} must equal depth.expert.width"
                f" {self.depth.expert.width}: DINOv2 tokens enter the decoder as they are"
            )

    @property
    def grid(self) -> int:
        """Tokens per image side."""
        return self.image_size // self.patch_size

    @property
    def image_tokens(self) -> int:
        return self.cameras * self.grid**2

    @property
    def cameras_apart(self) -> bool:
        """Whether depth tokens see only those of their own camera."""
        return self.depth is not None and self.depth.attention == "camera" and self.prefix_attention != "joint"

    @property
    def depth_size(self) -> int:
        """Side of a predicted depth map in pixels; 0 when depth is not predicted."""
        return self.grid * self.depth.head_pixels if self.depth and self.depth.predicts else 0

    @property
    def takes_depth(self) -> bool:
        """Whether the network needs true depth as an input."""
        return self.depth is not None and not self.depth.predicts


def read(path: str | Path) -> ModelConfig:
    """Read the dimensions in a file of models/configs. `"base": "<file>"` takes them from the file beside it, but for
    the keys that follow.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key or value is wrong; the message names file, key, value and what is allowed.
    """
    return _fill(Path(path), _with_base(Path(path)), ModelConfig)


def _with_base(path: Path) -> Any:
    values = files.read_json(path, "settings")
    if not isinstance(values, dict) or "base" not in values:
        return values
    base = values.pop("base")
    below = _with_base(path.with_name(base)) if isinstance(base, str) and base != path.name else None
    if not isinstance(below, dict):
        raise ValueError(f"{path}: base is {base!r}; it must be the name of another file of dimensions beside it")
    return _merge(below, values)


def _merge(base: dict, changes: dict) -> dict:
    both = [key for key, value in changes.items() if isinstance(value, dict) and isinstance(base.get(key), dict)]
    return {**base, **changes, **{key: _merge(base[key], changes[key]) for key in both}}


def from_dict(cls: type, values: Any, where: str = "config") -> Any:
    """Build the dataclass `cls` from plain `values`, nested ones too.

    Raises:
        ValueError: a key is unknown or missing, or a value has the wrong type; the message names the key and the value.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a mapping, got {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(fields))
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values]
    if unknown or missing:
        raise ValueError(f"{where}: unknown keys {unknown}, missing keys {missing}; allowed: {', '.join(fields)}")
    return cls(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (Union, UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        hint = next(option for option in options if option is not type(None))
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} is {value!r}; it must be a list")
        return tuple(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{where} is {value!r}; it must be {hint.__name__}")
    return value


def read_json(path: Path, cls: type) -> Any:
    """Read a JSON file into the dataclass `cls`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or does not fill `cls`; the message names the file and what is wrong.
    """
    return _fill(path, files.read_json(path, "settings"), cls)


def _fill(path: Path, values: Any, cls: type) -> Any:
    try:
        return from_dict(cls, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
