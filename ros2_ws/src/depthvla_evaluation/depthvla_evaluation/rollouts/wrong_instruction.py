"""Another instruction than the scene's, to see whether a policy does what it is told or what the scene suggests."""

from __future__ import annotations

import re

from r1lite_description import tasks

COMMON_COLOURS = ("red", "green", "blue", "yellow")  # of blocks that lie beside the named one
COLOURS = (*COMMON_COLOURS, "orange", "purple", "white")
SIDES = ("left", "right")
OTHER_TASK = "lift"


def wrong_instruction(instruction: str) -> str:
    """The instruction with its blocks exchanged; with another block where it names one; with the other arm where it
    names an arm only; else that of another task.
    """
    named = _named(instruction, COLOURS)
    if len(named) > 1:
        return _exchanged(instruction, dict(zip(named, (*named[1:], named[0]), strict=True)))
    if named:
        others = [colour for colour in COMMON_COLOURS if colour != named[0]]
        return _exchanged(instruction, {named[0]: others[0]})
    if _named(instruction, SIDES):
        return _exchanged(instruction, dict(zip(SIDES, reversed(SIDES), strict=True)))
    return tasks.load(OTHER_TASK).instruction


def _named(instruction: str, words: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(re.findall(rf"\b(?:{'|'.join(words)})\b", instruction)))


def _exchanged(instruction: str, words: dict[str, str]) -> str:
    return re.sub(rf"\b(?:{'|'.join(words)})\b", lambda found: words[found.group()], instruction)
