"""Report of recorded episodes, from their bags alone: `python -m depthvla_policy.evaluation.report BAG... --out DIR`.

One bag gives the page of its episode, several a comparison of their policies with a page for each episode.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from depthvla_policy.evaluation import comparison_figure, comparison_page, figures
from depthvla_policy.evaluation.bag import Bag
from depthvla_policy.evaluation.comparison_summary import summarise_comparison
from depthvla_policy.evaluation.episode_report import EpisodeReport, unknown_task, write_episode
from depthvla_policy.evaluation.notes import Notes, read_notes
from depthvla_policy.evaluation.scores import task_substeps
from depthvla_policy.evaluation.summary import table


@dataclass(frozen=True)
class ReportConfig:
    """Report of recorded episodes."""

    bags: Annotated[tuple[Path, ...], tyro.conf.Positional]  # rosbag2 folders, one an episode
    out: Path  # folder for the report; an earlier report in it is replaced
    video: bool = True  # a video of every episode
    paper: bool = False  # compare with the averages that the paper states (Fig. 4)


@dataclass(frozen=True)
class Comparison:
    html: Path
    summary: dict
    left_out: dict[str, str]  # bag -> why it could not be read


def main(argv: Sequence[str] | None = None) -> int:
    config = tyro.cli(ReportConfig, args=argv)
    try:
        if not config.bags:
            raise ValueError("no bag is given; at least one is needed")
        if len(config.bags) == 1 and not config.paper:
            made = write_report(config.bags[0], config.out, video=config.video)
            print(f"{table(made.summary)}\n\n{made.html}")
            return 0
        compared = write_comparison(config.bags, config.out, video=config.video, paper=config.paper)
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(f"{comparison_page.text(compared.summary)}\n\n{compared.html}")
    for reason in compared.left_out.values():
        print(f"report: left out: {reason}", file=sys.stderr)
    return 1 if compared.left_out else 0


def write_report(bag_path: str | Path, out: str | Path, *, video: bool = True) -> EpisodeReport:
    """Build the report of one bag in the folder `out`.

    Raises:
        FileNotFoundError: there is no such bag.
        ValueError: the bag cannot be read or is empty.
    """
    return write_episode(bag_path, out, video=video)


def write_comparison(
    bag_paths: Sequence[str | Path], out: str | Path, *, video: bool = True, paper: bool = False
) -> Comparison:
    """Build the report of many bags: `out/report.html`, and `out/<episode>/report.html` for each.

    A bag that cannot be read is left out, and named. A bag that is given twice counts once.

    Raises:
        ValueError: no bag could be read, or a page would be written into a bag.
    """
    out, paths = Path(out), list({Path(path).resolve(): Path(path) for path in bag_paths}.values())
    names = page_names(paths)
    for path in paths:
        if any((out / name).resolve().is_relative_to(path.resolve()) for name in names):
            raise ValueError(f"a page would be written into bag {path}: out is {out}, choose another")
    left_out: dict[str, str] = {}
    substeps, unknown = task_substeps(_all_notes(paths))
    made: dict[str, EpisodeReport] = {}
    for path, name in zip(tqdm(paths, "episodes", disable=None), names, strict=True):
        try:
            made[name] = write_episode(path, out / name, video=video, substeps=substeps)
        except Exception as error:  # whatever is wrong with a bag, the others are not to be lost with it
            left_out[str(path)] = str(error) if str(path) in str(error) else f"bag {path}: {error!r}"
    if not made:
        raise ValueError("no bag could be read:\n" + "\n".join(left_out.values()))
    found = [f"Left out: {reason}" for reason in left_out.values()]
    found += [unknown_task(task, substeps[task]) for task in unknown]
    published = comparison_figure.published_bars() if paper else {}
    summary, bars = summarise_comparison(made, dict(zip(names, paths, strict=True)), found, published)
    figure = out / "progress.png"
    figure.unlink(missing_ok=True)
    if bars:
        figures.save(comparison_figure.comparison_figure(bars), figure)
    (out / "summary.json").write_text(json.dumps(summary | {"left_out": left_out}, indent=2) + "\n")
    html = out / "report.html"
    html.write_text(comparison_page.render(summary, figure if bars else None))
    return Comparison(html, summary, left_out)


def page_names(bags: Sequence[Path]) -> list[str]:
    """A folder name for each bag's page: the bag's, with its parent's or a number where that is not enough."""
    names = [bag.resolve().name for bag in bags]
    shared = {name for name, count in Counter(names).items() if count > 1}
    names = [f"{bag.resolve().parent.name}-{n}" if n in shared else n for bag, n in zip(bags, names, strict=True)]
    distinct: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in distinct:
            number += 1
            candidate = f"{name}-{number}"
        distinct.append(candidate)
    return distinct


def _all_notes(paths: Sequence[Path]) -> list[Notes]:
    """Of the bags that can be read; the others are named when their episode is to be read."""
    notes = []
    for path in paths:
        with suppress(Exception), Bag(path) as bag:
            notes.append(read_notes(bag.custom_data))
    return notes


if __name__ == "__main__":
    sys.exit(main())
