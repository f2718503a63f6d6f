"""The report of many bags: one page a bag, one for all, and what becomes of bags that cannot be read."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import pytest
import yaml
from matplotlib.colors import to_hex
from synthetic_bag import SyntheticBag

from depthvla_evaluation.bags.notes import EpisodeNotes
from depthvla_evaluation.report import build as report
from depthvla_evaluation.report import episode_report, figures
from depthvla_evaluation.report.comparison import Estimate
from depthvla_evaluation.report.comparison_figure import AVERAGE, comparison_figure, merged_bars, published_bars

SECOND = 1_000_000_000


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(figures, "DPI", 30)


def write_bag(path, policy, scene, *, marks=0, outcome="failure", latency_s=0.1):
    """One second; so many of the substeps of a task without description are marked."""
    notes = EpisodeNotes("fold", "fold the cloth", "few-shot", policy, scene=scene)
    for index, substep in enumerate(("grasped", "folded")[:marks]):
        notes.mark(substep, SyntheticBag.START_NS + (index + 1) * SECOND // 4)
    notes.end(outcome)
    with SyntheticBag(path, notes.custom_data()) as bag:
        for step in range(16):
            bag.tick(step / 15, jitter_s=0.002, latency_s=latency_s, chunks_accepted=step)
    return path


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Policies a and b in two scenes, an aborted episode, two bags of one name, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("session")
    (folder / "unfinished").mkdir()
    bags = [
        write_bag(folder / "a1", "a", "1", marks=2, outcome="success"),
        write_bag(folder / "a2", "a", "2", marks=1),
        folder / "unfinished",
        write_bag(folder / "first/bag", "b", "1", marks=1, latency_s=0.3),
        write_bag(folder / "second/bag", "b", "2", latency_s=0.3),
        write_bag(folder / "a3", "a", "3", outcome="aborted"),
    ]
    patch = pytest.MonkeyPatch()
    patch.setattr(episode_report, "_draw", lambda *_: {})  # the pictures of the episodes' own pages take most time
    code = report.main([*map(str, bags), "--out", str(folder / "out"), "--no-video", "--paper"])
    patch.undo()
    return folder / "out", code, json.loads((folder / "out/summary.json").read_text())


def test_policies_are_summarised_side_by_side(compared):
    _, _, summary = compared
    groups = {group["policy"]: group["all"] for group in summary["groups"]}
    assert {policy: (g["n"], g["progress"]["value"], g["successes"]) for policy, g in groups.items()} == {
        "a": (2, 0.75, 1),
        "b": (2, 0.25, 0),
    }
    (difference,) = summary["differences"]
    assert (difference["policy"], difference["other"], difference["scenes"]) == ("a", "b", ["1", "2"])
    assert difference["progress"] == {"value": 0.5, "interval": [0.5, 0.5]}
    assert groups["a"]["substeps"] == {"grasped": 1.0, "folded": 0.5}
    assert summary["timing"]["b"]["chunk_latency_ms"]["p50"] == pytest.approx(300.0)
    assert summary["timing"]["a"]["executor_jitter_ms"]["p95"] == pytest.approx(2.0)
    assert summary["published"]["few-shot"][AVERAGE] == {"DepthVLA (paper)": 0.63, "pi0 (paper)": 0.45}


def test_every_episode_has_its_own_page_under_a_name_of_its_own(compared):
    out, _, summary = compared
    names = [episode["name"] for episode in summary["episodes"]]
    assert names == ["a1", "a2", "first-bag", "second-bag", "a3"]
    page = (out / "report.html").read_text()
    for name in names:
        assert (out / name / "report.html").exists() and f'href="{name}/report.html"' in page


def test_a_bag_that_cannot_be_read_is_named_and_does_not_lose_the_others(compared):
    out, code, summary = compared
    assert code == 1
    assert "unfinished has no metadata.yaml" in " ".join(summary["left_out"].values())
    page = (out / "report.html").read_text()
    assert "unfinished has no metadata.yaml" in page
    assert "a3 does not count: aborted." in page and "Task &#x27;fold&#x27; is unknown" in page
    assert "http:" not in page and "https:" not in page and "<script" not in page


def test_the_terminal_has_the_headline_and_the_differences(compared):
    _, _, summary = compared
    printed = report.comparison_page.text(summary)
    assert "few-shot  fold  a       2         75%       50% to 100%  50%" in printed
    assert "a - b  +50  +50 to +50  2 scenes in common" in printed


def test_nothing_readable_is_an_error_without_a_report(tmp_path, capsys):
    (tmp_path / "one").mkdir()
    words = [str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "out")]
    assert report.main(words) == 1
    complaint = capsys.readouterr().err
    assert "no episode could be read" in complaint and "two does not exist" in complaint
    assert not (tmp_path / "out").exists()


def test_a_page_is_never_written_into_a_bag(tmp_path, capsys):
    bags = [write_bag(tmp_path / name, "a", "1") for name in ("one", "two")]
    before = sorted(bags[0].iterdir())
    assert report.main([*map(str, bags), "--out", str(tmp_path)]) == 1
    assert "a page would be written into bag" in capsys.readouterr().err
    assert sorted(bags[0].iterdir()) == before


def test_a_bag_that_is_given_twice_counts_once_and_a_session_without_a_score_has_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(episode_report, "_draw", lambda *_: {})
    bag = write_bag(tmp_path / "one", "a", "1", outcome="aborted")
    made = report.write_comparison([bag, tmp_path / "." / "one", bag], tmp_path / "out", video=False)
    assert [episode["name"] for episode in made.summary["episodes"]] == ["one"]
    assert made.summary["groups"] == [] and "one does not count: aborted." in made.html.read_text()


def test_bags_of_one_name_get_distinct_pages(tmp_path):
    bags = [tmp_path / name for name in ("x", "demo/bag", "other/bag", "y/demo/bag")]
    assert report.page_names(bags) == ["x", "demo-bag", "other-bag", "demo-bag-2"]


def test_the_chart_has_the_layout_of_the_papers_figure_4(tmp_path):
    """A panel a setting, three tasks and the average in each, a bar a policy with its value and its interval."""
    tasks = ("blocks_stacking", "microwave_operation", "table_bussing")
    data = {
        setting: {task: {"DepthVLA": 0.8, "pi0": 0.5} for task in (*tasks, AVERAGE)}
        for setting in ("standard fine-tuning", "few-shot")
    }
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    bars = published_bars(tmp_path / "data.yaml")
    ours = {"few-shot": {"table_bussing": {"pi0": Estimate(0.4, (0.2, 0.7))}}}
    figure = comparison_figure(merged_bars(ours, bars))
    panels = {axis.get_title(): axis for axis in figure.axes}
    assert set(panels) == {"standard fine-tuning", "few-shot"}
    axis = panels["standard fine-tuning"]
    assert [label.get_text() for label in axis.get_xticklabels()] == [
        "blocks\nstacking",
        "microwave\noperation",
        "table\nbussing",
        AVERAGE,
    ]
    assert [bar.get_height() for bar in axis.patches] == [0.8, 0.5] * 4
    assert [text.get_text() for text in axis.texts] == ["80%", "50%"] * 4
    assert len({to_hex(bar.get_edgecolor()) for bar in axis.patches}) == 2
    (measured,) = [bar for bar in panels["few-shot"].patches if not bar.get_hatch()]
    (interval,) = _intervals(panels["few-shot"])
    assert measured.get_height() == 0.4 and interval == pytest.approx((0.2, 0.7))
    plt.close(figure)


def _intervals(axis) -> list[tuple[float, float]]:
    """Lower and upper end of every error bar."""
    ends = [collection.get_segments()[0] for collection in axis.collections]
    return [(float(segment[0][1]), float(segment[-1][1])) for segment in ends]


def test_the_papers_figures_are_those_that_its_text_states():
    values = {
        (setting, policy): estimate.value
        for setting, tasks in published_bars().items()
        for policy, estimate in tasks[AVERAGE].items()
    }
    assert values == {
        ("standard fine-tuning", "DepthVLA (paper)"): 0.79,
        ("standard fine-tuning", "pi0 (paper)"): 0.65,
        ("few-shot", "DepthVLA (paper)"): 0.63,
        ("few-shot", "pi0 (paper)"): 0.45,
    }


def test_a_published_figure_that_is_no_share_is_refused(tmp_path):
    (tmp_path / "data.yaml").write_text("few-shot: {Average: {pi0: 45}}")
    with pytest.raises(ValueError, match="few-shot, Average, pi0 is 45; it must be within 0 and 1"):
        published_bars(tmp_path / "data.yaml")
