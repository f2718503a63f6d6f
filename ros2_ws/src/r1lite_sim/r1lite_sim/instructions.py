"""The sentence of a staged task, and its options. Imports no MuJoCo: what starts the simulator reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DRAWN = "random"  # for an option: another one in every scene
SIDES = ("left", "right")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white")
LIFT_COLOURS = COLOURS[:4]
TEMPLATES = {
    "lift": "lift the {colour} block with the {side} arm",
    "touch": "touch the {colour} block with the {side} arm",
    "blocks_stacking": "stack the {colours[1]} block on the {colours[0]} block and the {colours[2]} block on the"
    " {colours[1]} block",
    "table_bussing": "put the pens in the holder, the headphones on the hook and the book on the stand",
    "microwave_operation": "open the microwave, put the food on the plate, put the plate in the microwave and close the"
    " door",
}
STAGED = {"colour": "red", "side": "right", "colours": ("red", "green", "blue")}  # by the simulator, unless told others


def instruction(task: str, options: Mapping[str, Any]) -> str:
    """The sentence of the task that the simulator stages with these options.

    Raises:
        ValueError: an option is unknown, not allowed, or drawn in every scene.
    """
    template = TEMPLATES[task]
    if unknown := sorted(set(options) - set(STAGED)):
        raise ValueError(f"{unknown[0]} is no option of the simulator; allowed: {', '.join(STAGED)}")
    if DRAWN in options.values():
        raise ValueError("what is drawn cannot be told to the policy")
    names = [name for name in STAGED if f"{{{name}}}" in template or f"{{{name}[" in template]
    if unknown := [name for name in options if name not in names]:
        raise ValueError(f"{unknown[0]} is no option of task {task!r}; allowed: {', '.join(names) or 'none'}")
    for name, value in options.items():
        if name == "colours":
            check_colours(value)
        else:
            colours = LIFT_COLOURS if task == "lift" else COLOURS
            check_option(name, value, SIDES if name == "side" else colours)
    return template.format(**{**STAGED, **options})


def check_option(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raises ValueError where the value is neither allowed nor to be drawn."""
    if value not in (*allowed, DRAWN):
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}, {DRAWN}")


def check_colours(colours: Sequence[str]) -> None:
    """Raises ValueError unless these are three different colours, from the table upwards."""
    if len(colours) != 3 or len(set(colours)) != 3 or not set(colours) <= set(COLOURS):
        raise ValueError(f"colours is {colours!r}; allowed: three different ones of {', '.join(COLOURS)}, or {DRAWN}")
