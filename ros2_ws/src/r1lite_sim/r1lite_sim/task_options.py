"""Options of a task as words, `colour=blue side=random`, and what they are in a scene.

"random" is drawn anew in every scene, from its seed: by the task itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from r1lite_sim.instructions import DRAWN

if TYPE_CHECKING:
    import gymnasium


def parse(words: Sequence[str]) -> dict[str, Any]:
    """Options by name; a value with commas is a tuple.

    Raises:
        ValueError: a word is not NAME=VALUE, or a name comes twice.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not (separator and name and value):
            raise ValueError(f"task option is {word!r}; allowed: NAME=VALUE")
        if name in options:
            raise ValueError(f"task option {name} comes twice: {options[name]!r} and {value!r}")
        options[name] = tuple(value.split(",")) if "," in value else value
    return options


def written(options: Mapping[str, Any]) -> dict[str, str]:
    """Options as the words that `parse` reads give their values."""
    return {name: ",".join(value) if isinstance(value, tuple) else value for name, value in options.items()}


def for_reset(env: gymnasium.Env, options: dict[str, Any]) -> dict[str, Any]:
    """The options as `env.reset` takes them: a task that draws what it is not given is given nothing."""
    drawn_anyway = {name for name, parameter in _parameters(env).items() if parameter.default is None}
    return {name: None if value == DRAWN and name in drawn_anyway else value for name, value in options.items()}


def of_scene(env: gymnasium.Env, options: dict[str, Any]) -> dict[str, Any]:
    """All options of the task with their values in the present scene; of a foreign environment those given."""
    values = options | {name: getattr(task(env), name) for name in _parameters(env)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def task(env: gymnasium.Env) -> Any:
    """The task that the simulation of r1lite_sim stages; None in an environment without."""
    return getattr(getattr(env.unwrapped, "simulation", None), "task", None)


def _parameters(env: gymnasium.Env) -> dict[str, inspect.Parameter]:
    staged = task(env)
    return {} if staged is None else dict(inspect.signature(type(staged)).parameters)
