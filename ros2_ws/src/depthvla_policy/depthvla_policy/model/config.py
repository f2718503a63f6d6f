"""The dimensions of a DepthVLA network. A checkpoint's `config.json` fills these; `depth: null` gives pi0."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from r1lite_description import files

NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
IMAGE_FITS = ("pad", "crop")


def settings(cls: type) -> type:
    """A frozen dataclass that pydantic checks: a wrong value is a ValueError of one line that names key, value and
    what is allowed.
    """
    checked = dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))(cls)
    init = checked.__init__

    @wraps(init)
    def explained_init(self: object, *args: object, **values: object) -> None:
        with _explained(checked):
            init(self, *args, **values)

    checked.__init__ = explained_init
    return checked


@settings
class EncoderConfig:
    """A vision transformer: width, layers, heads, MLP width."""

    width: int
    layers: int
    heads: int
    mlp: int


@settings
class ExpertConfig:
    """What an expert has of its own. Heads, head width and layers are shared by all experts."""

    width: int
    mlp: int


@settings
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
    attention: Literal["camera", "all"] = "camera"
    start: Literal["pretrained", "random"] = "pretrained"
    loss_weight: NotNegative = 1.0
    frozen: bool = False
    input: Literal["image", "ground_truth"] = "image"

    @property
    def predicts(self) -> bool:
        """Whether there is a depth head."""
        return self.input == "image"


@settings
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
    image_fit: Literal["pad", "crop"]
    patch_size: int
    cameras: int
    vocab_size: int
    max_text_tokens: int
    state_dim: int
    action_dim: int
    horizon: int
    euler_steps: int = 10
    prefix_attention: Literal["blockwise", "joint"] = "blockwise"

    def __post_init__(self) -> None:
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
    return fill(Path(path), _with_base(Path(path)), ModelConfig)


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


def read_json(path: Path, cls: type) -> Any:
    """Read a JSON file into the dataclass `cls`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or does not fill `cls`; the message names the file and what is wrong.
    """
    return fill(path, files.read_json(path, "settings"), cls)


def fill(path: Path, values: Any, cls: type) -> Any:
    """The dataclass `cls` of the plain values in a file. Raises ValueError as `read_json`."""
    try:
        with _explained(cls):
            return TypeAdapter(cls).validate_json(json.dumps(values, default=str))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@contextmanager
def _explained(cls: type) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise ValueError("; ".join(_explain(cls, part) for part in error.errors(include_url=False))) from None


def _explain(cls: type, error: dict[str, Any]) -> str:
    name = ".".join(map(str, error["loc"])) or "config"
    if error["type"] == "value_error":  # of a __post_init__
        return str(error["ctx"]["error"])
    if error["type"] in ("missing", "unexpected_keyword_argument"):
        what = "missing" if error["type"] == "missing" else "unknown"
        return f"key {name} is {what}; allowed: {', '.join(_keys(cls, error['loc'][:-1]))}"
    if error["type"] == "literal_error":
        return f"{name} is {error['input']!r}; allowed: {error['ctx']['expected']}"
    return f"{name} is {error['input']!r}; {error['msg'].replace('Input should', 'it must')}"


def _keys(cls: type, where: tuple) -> list[str]:
    """Of the dataclass that is found below `cls` by these names."""
    for name in where:
        hint = get_type_hints(cls)[name]
        cls = next(option for option in (hint, *get_args(hint)) if dataclasses.is_dataclass(option))
    return [field.name for field in dataclasses.fields(cls)]
