"""Report of episodes: `depthvla report BAG... RESULTS.json... --out DIR`.

One bag gives the page of its episode. Several, or results of `r1lite_bringup.evaluate`, give a comparison of their
policies, with a page for each bag; everything in it comes from those files alone.
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

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.notes import Notes, read_notes
from depthvla_evaluation.report import comparison_figure, comparison_page, figures, simulated
from depthvla_evaluation.report.comparison_summary import ComparedEpisode, summarise_comparison
from depthvla_evaluation.report.episode_report import EpisodeReport, unknown_task, write_episode
from depthvla_evaluation.report.scores import task_substeps
from depthvla_evaluation.report.summary import table

SUMMARY = "summary.json"


@dataclass(frozen=True)
class ReportConfig:
    """Report of recorded episodes, and of evaluations."""

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional]  # rosbag2 folders, one an episode; results (JSON)
    out: Path  # folder for the report; an earlier report in it is replaced
    video: bool = True  # a video of every recorded episode
    paper: bool = False  # compare with the averages that the paper states (Fig. 4)


@dataclass(frozen=True)
class Comparison:
    html: Path
    summary: dict
    left_out: dict[str, str]  # bag or results file -> why it could not be read


def main(argv: Sequence[str] | None = None) -> int:
    config = tyro.cli(ReportConfig, args=argv)
    try:
        if not config.sources:
            raise ValueError("neither a bag nor results are given; at least one is needed")
        if len(config.sources) == 1 and not config.paper and not simulated.is_results(config.sources[0]):
            made = write_episode(config.sources[0], config.out, video=config.video)
            for remark in made.remarks:
                print(f"report: {remark}", file=sys.stderr)
            print(f"{table(made.summary)}\n\n{made.html}")
            return 0
        compared = write_comparison(config.sources, config.out, video=config.video, paper=config.paper)
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(f"{comparison_page.text(compared.summary)}\n\n{compared.html}")
    for reason in compared.left_out.values():
        print(f"report: left out: {reason}", file=sys.stderr)
    return 1 if compared.left_out else 0


def write_comparison(
    sources: Sequence[str | Path], out: str | Path, *, video: bool = True, paper: bool = False
) -> Comparison:
    """Build the report of bags and results files: `out/report.html`, and `out/<episode>/report.html` for each bag.

    What cannot be read is left out, and named. What is given twice counts once.

    Raises:
        ValueError: nothing could be read, a page would be written into a bag, or the summary over results.
    """
    out, paths = Path(out), list({Path(path).resolve(): Path(path) for path in sources}.values())
    names = page_names(paths)
    for path in paths:
        if path.resolve() == (out / SUMMARY).resolve():
            raise ValueError(f"the summary would be written over {path}: out is {out}, choose another")
        if not simulated.is_results(path) and any((out / n).resolve().is_relative_to(path.resolve()) for n in names):
            raise ValueError(f"a page would be written into bag {path}: out is {out}, choose another")
    left_out: dict[str, str] = {}
    substeps, unknown = task_substeps(_all_notes(paths))
    episodes: dict[str, ComparedEpisode] = {}
    runs: list[simulated.Run] = []
    for path, name in zip(tqdm(paths, "read", disable=None), names, strict=True):
        try:
            if simulated.is_results(path):
                runs += simulated.read_runs(path, name)
            else:
                made = write_episode(path, out / name, video=video, substeps=substeps)
                episodes[name] = _recorded(made, path, f"{name}/report.html")
        except Exception as error:  # whatever is wrong with one of them, the others are not to be lost with it
            left_out[str(path)] = str(error) if str(path) in str(error) else f"{path}: {error!r}"
    episodes |= simulated.compared_episodes(runs, out, {episode.score.policy for episode in episodes.values()})
    if not episodes:
        raise ValueError("no episode could be read:\n" + "\n".join(left_out.values()))
    found = [f"Left out: {reason}" for reason in left_out.values()]
    found += [unknown_task(task, substeps[task]) for task in unknown]
    published = comparison_figure.published_bars() if paper else {}
    summary, bars = summarise_comparison(episodes, found, published)
    out.mkdir(parents=True, exist_ok=True)
    figure = out / "progress.png"
    figure.unlink(missing_ok=True)
    if bars:
        figures.save(comparison_figure.comparison_figure(bars), figure)
    (out / SUMMARY).write_text(json.dumps(summary | {"left_out": left_out}, indent=2) + "\n")
    html = out / "report.html"
    html.write_text(comparison_page.render(summary, figure if bars else None))
    return Comparison(html, summary, left_out)


def page_names(paths: Sequence[Path]) -> list[str]:
    """A name for each bag, its page's folder, or results file: its own, with its parent's or a number where that is not
    enough.
    """
    names = [path.resolve().name for path in paths]
    shared = {name for name, count in Counter(names).items() if count > 1}
    names = [f"{path.resolve().parent.name}-{n}" if n in shared else n for path, n in zip(paths, names, strict=True)]
    distinct: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in distinct:
            number += 1
            candidate = f"{name}-{number}"
        distinct.append(candidate)
    return distinct


def _recorded(made: EpisodeReport, bag: Path, page: str) -> ComparedEpisode:
    return ComparedEpisode(
        score=made.score,
        bag=str(bag),
        page=page,
        started=made.summary["started"],
        outcome=made.summary["outcome"],
        no_video=made.no_video,
        inference_s=float(made.inference_s.mean()) if made.inference_s.size else None,
        chunk_latency_s=made.chunk_latency_s,
        jitter_s=made.jitter_s,
    )


def _all_notes(paths: Sequence[Path]) -> list[Notes]:
    """Of the bags that can be read; the others are named when their episode is to be read."""
    notes = []
    for path in paths:
        with suppress(Exception), Bag(path) as bag:
            notes.append(read_notes(bag.custom_data))
    return notes
