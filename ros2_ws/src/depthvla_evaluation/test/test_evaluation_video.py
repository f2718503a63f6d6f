"""An episode's video: what is on its frames, when they are, and what happens where none can be made."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from synthetic_bag import SyntheticBag

from depthvla_control.arbiter import Mode
from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.episode import read_episode
from depthvla_evaluation.bags.notes import EpisodeNotes
from depthvla_evaluation.report import figures
from depthvla_evaluation.report.episode_report import write_episode
from depthvla_evaluation.report.video_frame import BANNER, CHIPS, GAP, Composer

K = np.array([[20.0, 0, 15.5], [0, 20.0, 8.5], [0, 0, 1]])  # of an image of 32 x 18
SECOND = 1_000_000_000
RED = (200, 0, 0)


@pytest.fixture(scope="module")
def bag_path(tmp_path_factory):
    """Two seconds of the head camera at 30 Hz, red from 1 s on; a substep at 0.5 s, a take-over at 1.5 s."""
    path = tmp_path_factory.mktemp("episode") / "bag"
    notes = EpisodeNotes("fold", "fold the cloth", "few-shot", "tiny", scene="3")
    notes.mark("grasped", SyntheticBag.START_NS + SECOND // 2)
    notes.end("failure", "it <slipped>")
    custom = notes.custom_data() | {
        "git_revision": "abc+dirty",
        "parameters": json.dumps({"/policy_node": {"device": "cuda"}}),
        "topics_missing": json.dumps(["/hdas/feedback_arm_left"]),
    }
    with SyntheticBag(path, custom) as bag:
        bag.camera_info(bag.robot.cameras[0].camera_info, 0.0, K, 32, 18)
        bag.mode_change(
            -30.0, Mode.TELEOP, Mode.POLICY, intervention=True, received_s=0.0
        )  # latched, of another episode
        for step in range(60):
            time_s = step / 30
            bag.tick(time_s, mode=Mode.POLICY if time_s < 1.5 else Mode.TELEOP)
            bag.image("head", time_s, np.full((18, 32, 3), RED if time_s >= 1 else 0, np.uint8))
            bag.joints(bag.robot.limbs[0].topics.arm_feedback, time_s, np.full(6, time_s))
        bag.mode_change(1.5, Mode.TELEOP, Mode.POLICY, intervention=True)
    return path


@pytest.fixture
def composer(bag_path):
    """Draws the canvas of a time [s], with every image taken that comes until then."""
    with Bag(bag_path) as bag:
        episode = read_episode(bag)
        images = list(bag.messages([episode.robot.cameras[0].topic]))
    made = Composer(episode)

    def draw(time_s):
        time_ns = SyntheticBag.START_NS + round(time_s * SECOND)
        for topic, received_ns, message in images:
            if received_ns <= time_ns:
                made.take(topic, message)
        return made.draw(time_ns).copy()

    return draw


def colour(mode: Mode) -> list[int]:
    return [int(figures.MODE_COLOURS[mode][at : at + 2], 16) for at in (1, 3, 5)]


def test_a_frame_shows_the_newest_image_the_mode_and_what_is_marked(composer):
    early, late = composer(0.25), composer(1.75)
    for frame in (early, late):
        assert frame.dtype == np.uint8 and frame.shape[1:] == (1280, 3) and frame.shape[0] % 2 == 0
    middle = BANNER + CHIPS + 120, GAP + 200
    assert early[middle].max() < 10
    np.testing.assert_allclose(late[middle], RED, atol=6)
    np.testing.assert_array_equal(early[12, GAP + 20], colour(Mode.POLICY))
    np.testing.assert_array_equal(late[12, GAP + 20], colour(Mode.TELEOP))
    assert not np.array_equal(early[BANNER : BANNER + CHIPS], late[BANNER : BANNER + CHIPS])


def test_a_cursor_runs_along_the_joints(composer):
    def cursor(frame):
        found = np.all(frame == (207, 58, 58), axis=-1).sum(axis=0)
        return int(np.argmax(found[: frame.shape[1] // 2]))

    first, second, third = (cursor(composer(time_s)) for time_s in (0.5, 1.0, 1.5))
    assert second - first == pytest.approx(third - second, abs=1) and second > first + 50


def test_the_video_has_a_frame_for_every_image_at_no_more_than_fifteen_a_second(bag_path, tmp_path, monkeypatch):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    monkeypatch.setattr(figures, "DPI", 40)
    write_episode(bag_path, tmp_path)
    with av.open(str(tmp_path / "episode.mp4")) as container:
        (stream,) = container.streams.video
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        times = [float(frame.time) for frame in container.decode(stream)]
    np.testing.assert_allclose(times, np.arange(30) / 15, atol=2e-3)
    page = (tmp_path / "report.html").read_text()
    frames = json.loads(re.search(r'id="frames">(.*?)</script>', page)[1])
    np.testing.assert_allclose(frames["times"], times, atol=2e-3)
    assert '<video id="video" src="episode.mp4"' in page and 'data-seek="1.500"' in page


def test_without_pyav_the_page_is_made_and_says_why_there_is_no_video(bag_path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(figures, "DPI", 40)
    made = write_episode(bag_path, tmp_path)
    page = made.html.read_text()
    assert "There is no video: PyAV (av) is not installed." in page and "<video" not in page
    assert not (tmp_path / "episode.mp4").exists()
    assert [item["cause"] for item in made.summary["interventions"]] == ["the leader arms were taken"]
    for told in (
        "few-shot",
        "it &lt;slipped&gt;",
        "abc+dirty",
        "&quot;device&quot;",
        "/hdas/feedback_arm_left",
        "fold",
    ):
        assert told in page
    assert "Task &#x27;fold&#x27; is unknown" in page
