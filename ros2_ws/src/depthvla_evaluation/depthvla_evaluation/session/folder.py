"""The folder of a session of scored episodes: which are done, which one is next, what is set aside.

The folder alone tells: a closed bag of this session whose outcome is success or failure counts. Nothing is deleted or
overwritten, so a session that was killed at any moment goes on with the same command.
"""

from __future__ import annotations

import datetime
import fcntl
import itertools
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from depthvla_evaluation.bags.bag import Bag
from r1lite_description.tasks import Task

FILE = "session.yaml"
ASIDE = "aside"  # a folder of its own, so that `episode_*` names what counts and nothing else
UNFINISHED = "unfinished"
MAX_SUBSTEPS = 9  # each has a key
SCORED = ("success", "failure")
# What must be the same when a session goes on; more episodes may be asked for.
_LIKE_THE_TASK = ("name", "instruction", "substeps")
_LIKE_THE_PLAN = ("policy", "setting", "first_scene", "simulator")
_EPISODE = re.compile(r"episode_(\d+)(?:\.(broken))?")


@dataclass(frozen=True)
class Plan:
    """What a session is for.

    policy: name under which the report groups the episodes; empty: the policy's own model id.
    simulator: scenes are seeds of the simulation; otherwise layouts that a person puts in place.

    Raises:
        ValueError: a value is not allowed.
    """

    task: Task
    policy: str
    setting: str
    episodes: int
    first_scene: int = 0
    simulator: bool = False

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes is {self.episodes}; allowed: 1 or more")
        if self.first_scene < 0:
            raise ValueError(f"first_scene is {self.first_scene}; allowed: 0 or more")
        if len(self.task.substeps) > MAX_SUBSTEPS:
            count = len(self.task.substeps)
            raise ValueError(
                f"task {self.task.name!r} has {count} substeps; allowed: at most {MAX_SUBSTEPS}, one a key"
            )

    def scene(self, number: int) -> int:
        """Scene of an episode; episodes count from 1."""
        return self.first_scene + number - 1

    def scene_name(self, number: int) -> str:
        """As the bag has it. Policies are compared scene by scene."""
        return f"{'seed' if self.simulator else 'layout'} {self.scene(number)}"


@dataclass(frozen=True)
class Result:
    """An episode that counts."""

    outcome: str
    policy: str
    substeps: tuple[str, ...]  # of the task, those that were marked


@dataclass(frozen=True)
class Aside:
    """A bag that does not count, and where it is now."""

    name: str
    why: str
    path: Path


class SessionFolder:
    """The folder of one session, for one process at a time. `results` are the episodes that count, by number.

    Raises:
        ValueError: the folder was made for another session, is in use, or its file cannot be read.
        OSError: it cannot be made.
    """

    def __init__(self, path: str | Path, plan: Plan) -> None:
        self.path, self.plan = Path(path).expanduser().absolute(), plan
        self.results: dict[int, Result] = {}
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path, os.O_RDONLY)  # the lock ends with the process, however that ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._claim()
        except BlockingIOError:
            os.close(self._lock)
            raise ValueError(f"{self.path}: another session is running in this folder") from None
        except (OSError, ValueError):
            os.close(self._lock)
            raise

    def close(self) -> None:
        os.close(self._lock)

    def bag(self, number: int) -> Path:
        return self.path / f"episode_{number:02d}"

    def next(self) -> int | None:
        """The first episode that is not done."""
        return next((number for number in range(1, self.plan.episodes + 1) if number not in self.results), None)

    def sort(self) -> list[Aside]:
        """Reads the bags that are there and sets aside those that do not count. Not while one is being recorded."""
        moved = []
        for path in sorted(self.path.iterdir()):
            match = _EPISODE.fullmatch(path.name)
            if not match:
                continue
            number = int(match[1])
            found = match[2] or self.results.get(number) or self._read(path, number)
            if isinstance(found, Result):
                self.results[number] = found
            else:
                moved.append(self._set_aside(path, found))
        return moved

    def redo(self, number: int) -> Aside:
        """Sets an episode aside that counted until now."""
        moved = self._set_aside(self.bag(number), "redone")
        del self.results[number]
        return moved

    def _read(self, path: Path, number: int) -> Result | str:
        """The result of an episode, or in a word why it does not count."""
        if not (path / "metadata.yaml").exists():
            return UNFINISHED
        try:
            with Bag(path) as bag:
                about = bag.custom_data
        except ValueError:
            return "unreadable"
        if about.get("outcome") not in SCORED:
            return about.get("outcome") or "unscored"
        plan = self.plan
        mine = {"task": plan.task.name, "setting": plan.setting, "scene": plan.scene_name(number)}
        if any(about.get(key) != value for key, value in mine.items()) or path != self.bag(number):
            return "foreign"
        marked = [mark["substep"] for mark in json.loads(about["substeps"])]
        done = tuple(substep for substep in plan.task.substeps if substep in marked)
        return Result(about["outcome"], about["policy"], done)

    def _set_aside(self, path: Path, why: str) -> Aside:
        folder = self.path / ASIDE
        folder.mkdir(exist_ok=True)
        for count in itertools.count(1):
            target = folder / f"{path.name}.{why}-{count}"
            if not target.exists():
                return Aside(path.name, why, path.rename(target))

    def _claim(self) -> None:
        """Writes what the session is for, or compares it with what is written."""
        file, plan = self.path / FILE, self.plan
        if not file.exists():
            if any(_EPISODE.fullmatch(path.name) for path in self.path.iterdir()):
                raise ValueError(f"{self.path} has episodes but no {FILE}; a session needs a folder of its own")
            self._write(datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"))
            return
        try:
            written = yaml.safe_load(file.read_text())
            there = {**written["task"], **{key: written[key] for key in _LIKE_THE_PLAN}}
            episodes, created = written["episodes"], written["created"]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise ValueError(f"{file} cannot be read: {error!r}") from error
        here = {**asdict(plan.task), **asdict(plan)}
        for key in (*_LIKE_THE_TASK, *_LIKE_THE_PLAN):
            if here[key] != there.get(key):
                name = "task" if key == "name" else key
                raise ValueError(
                    f"{name} is {here[key]!r}, but the session in {self.path} has {there.get(key)!r}; another session"
                    " needs another folder"
                )
        if episodes != plan.episodes:
            self._write(created)

    def _write(self, created: str) -> None:
        task = asdict(self.plan.task)
        about = {**asdict(self.plan), "task": {**task, "reset": list(task["reset"])}, "created": created}
        temporary = self.path / f"{FILE}.tmp"
        temporary.write_text(yaml.safe_dump(about, sort_keys=False, allow_unicode=True))
        temporary.replace(self.path / FILE)
