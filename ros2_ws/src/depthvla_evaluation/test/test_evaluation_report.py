"""The report of a bag whose every number is known, and of bags that lack something."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic_bag import SyntheticBag

from depthvla_evaluation.bags.bag import Bag, depth_image
from depthvla_evaluation.bags.episode import read_episode
from depthvla_evaluation.bags.pictures import read_pictures
from depthvla_evaluation.report import build as report
from depthvla_evaluation.report import figures
from depthvla_evaluation.report.figures import mode_spans
from depthvla_evaluation.report.scores import score_episode
from depthvla_evaluation.report.summary import _alike, findings, summarise_episode
from depthvla_policy.policy.images import ImageFit
from r1lite_description import robot as robot_description
from r1lite_description.share import robot_file

K = np.array([[20.0, 0, 15.5], [0, 20.0, 8.5], [0, 0, 1]])  # of an image of 32 x 18
FIT = ImageFit(8, "crop")
SIZE = 6  # of the predicted depth


@pytest.fixture(scope="module")
def bag_path(tmp_path_factory):
    """Four seconds: 3 chunks, 60 ticks of which 2 were missed, 2 depth images of one camera, success at 3 s."""
    path = tmp_path_factory.mktemp("episode") / "bag"
    robot = robot_description.load()
    custom = {
        "robot": robot_file().read_text(),
        "machine": json.dumps({"processor": "test", "cores": 2}),
        "messages_lost": json.dumps({"/joint_states": 4}),
    }
    with SyntheticBag(path, custom) as bag:
        head = robot.cameras[0]
        bag.camera_info(head.camera_info, 0.0, K, 32, 18)
        bag.camera_info("/simulator_node/depth/head/camera_info", 0.0, K, 32, 18)
        bag.camera_info("/policy_node/depth/head/camera_info", 0.0, FIT.camera_matrix(K, 32, 18, SIZE), SIZE, SIZE)
        for time_s in (0.0, 1.0, 2.0, 3.0):
            bag.image("head", time_s, np.full((18, 32, 3), int(50 * time_s), np.uint8))
        # AbsRel 0.1 in the first image, 0.3 in the second; pixels without a true reading do not count.
        true = np.full((18, 32), 2.0, np.float32)
        bag.depth("/simulator_node/depth/head/image", 1.0, true)
        bag.depth("/policy_node/depth/head/image", 1.0, np.full((SIZE, SIZE), 2.2), received_s=1.1)
        true[:, :16] = np.nan
        bag.depth("/simulator_node/depth/head/image", 1.99, true)  # its own stamp, 10 ms before the reference camera's
        bag.depth("/policy_node/depth/head/image", 2.0, np.full((SIZE, SIZE), 1.4), received_s=2.1)
        bag.depth("/simulator_node/depth/head/image", 3.0, true)  # never predicted
        # Chunks at 0.5, 1.5 and 2.5 s: 2 in 2 s are 1 Hz. Latencies at the executor 60, 80, 100 ms.
        for sequence, (received_s, latency_s) in enumerate(((0.5, 0.06), (1.5, 0.08), (2.5, 0.1)), start=1):
            bag.chunk(received_s - latency_s + 0.01, received_s, sequence, inference_s=0.04)
        for tick in range(60):
            time_s = tick / 15
            accepted = int(time_s >= 0.5) + int(time_s >= 1.5) + int(time_s >= 2.5)
            bag.tick(
                time_s,
                mode=1 if time_s < 0.5 else 3,
                jitter_s=0.001 * (1 + tick % 2),
                latency_s=(0.0, 0.06, 0.08, 0.1)[accepted],
                chunks_accepted=accepted,
                chunks_refused=1,
                last_refusal="chunk 2 is not newer",
                commands_sent=4 * (tick + 1),
                ticks=tick + 1,
                missed_ticks=2 if tick > 30 else 0,
            )
            for limb in robot.limbs:
                bag.joints(limb.topics.arm_command, time_s, np.arange(6) * 0.1)
                bag.joints(limb.topics.gripper_command, time_s, [40.0])
        for step in range(400):
            for limb in robot.limbs:
                bag.joints(limb.topics.arm_feedback, step / 100, np.arange(6) * 0.1)
                bag.joints(limb.topics.gripper_feedback, step / 100, [41.0])
        for time_s, progress in ((0.0, 0.0), (1.0, 0.5), (3.0, 1.0), (3.9, 1.0)):
            bag.progress(time_s, progress, success=time_s == 3.0)
    return path


@pytest.fixture(scope="module")
def summary(bag_path):
    with Bag(bag_path) as bag:
        episode = read_episode(bag)
        return summarise_episode(episode, score_episode(episode, {}), read_pictures(bag, episode, []).depth)


def test_counts_are_those_of_the_recording(tmp_path):
    with SyntheticBag(tmp_path / "bag") as bag:
        for number in range(30):  # activated a minute before, and once more after 20 ticks
            tick = 900 + number if number < 20 else number - 19
            many = 400 if number < 20 else 0
            bag.tick(
                number / 15,
                ticks=tick,
                commands_sent=4 * tick,
                missed_ticks=7 + (number > 5) if number < 20 else 1,
                chunks_accepted=many + number // 3,
                chunks_refused=3,
                clamped_position=many // 4,
                latency_s=0.1,
            )
    with Bag(tmp_path / "bag") as bag:
        episode = read_episode(bag)
    ticks = episode.ticks
    assert (ticks.ticks, ticks.commands_sent, ticks.missed) == (19 + 10, 4 * 29, 1 + 1)
    assert (ticks.refused, ticks.clamped_position) == (0, 0)
    assert list(ticks.accepted[[0, 19]]) == [0, 6] and len(episode.chunk_latency_s) == 6 + 4


def test_success_before_the_recording_has_no_time(tmp_path):
    with SyntheticBag(tmp_path / "bag") as bag:
        for number in range(20):
            bag.tick(number / 15)
            bag.progress(number / 15 - 0.05, 1.0, success=True)
        bag.chunk(0.8, 0.9, 1)
    made = report.write_report(tmp_path / "bag", tmp_path / "report", video=False)
    assert made.summary["success"] and made.summary["success_time_s"] is None
    assert "yes, before the first observation" in report.table(made.summary)
    assert "before the first observation" in made.html.read_text()


def test_chunks_are_counted_and_timed(summary):
    assert summary["chunks"] == 3
    assert summary["chunk_rate_hz"] == pytest.approx(1.0)
    assert summary["chunk_latency_ms"] == pytest.approx({"p50": 80.0, "p95": 98.0, "max": 100.0, "mean": 80.0})
    assert summary["inference_ms"]["p50"] == pytest.approx(40.0)
    assert summary["chunks_refused"] == 1


def test_commands_and_ticks_are_those_of_the_executor(summary):
    assert summary["commands_sent"] == 240
    assert summary["commands_recorded"] == 240
    assert summary["command_rate_hz"] == pytest.approx(15.0, rel=1e-3)
    assert (summary["ticks"], summary["missed_ticks"]) == (60, 2)
    assert summary["executor_jitter_ms"]["mean"] == pytest.approx(1.5)
    assert summary["mode_s"] == pytest.approx({"HOLD": 8 / 15, "POLICY": 52 / 15}, abs=1e-3)


def test_depth_error_is_the_mean_over_compared_images(summary):
    assert summary["depth_images"] == 2
    assert summary["depth_abs_rel"] == pytest.approx(0.2, abs=1e-6)
    assert summary["depth_abs_rel_by_camera"] == {
        "head": pytest.approx(0.2, abs=1e-6),
        "wrist_left": None,
        "wrist_right": None,
    }
    assert summary["depth_rmse_m"] == pytest.approx(0.4, abs=1e-5)
    assert summary["depth_delta_1"] == pytest.approx(0.5)  # 2.0 / 1.4 is above 1.25


def test_success_counts_at_any_time_of_the_episode(summary):
    assert summary["success"] is True
    assert summary["success_time_s"] == pytest.approx(3.0 - 0.45)  # since the first chunk's observation
    assert (summary["progress"], summary["seed"]) == (1.0, 7)


def test_where_it_came_from_is_told(summary):
    assert summary["instruction"] == "lift the red block"
    assert summary["model_id"] == "tiny@0123456789ab"
    assert summary["machine"] == {"processor": "test", "cores": 2}
    assert summary["messages_lost"] == {"/joint_states": 4}
    assert summary["recorded_s"] == pytest.approx(3.99, abs=0.01)
    assert summary["duration_s"] == pytest.approx(3.99 - 0.45, abs=0.01)


def test_findings_name_what_needs_a_look(bag_path):
    with Bag(bag_path) as bag:
        episode = read_episode(bag)
    score = score_episode(episode, {})
    found = "\n".join(findings(episode, score, summarise_episode(episode, score)))
    assert "2 of 60 control ticks were missed" in found
    assert "1 chunks were refused, the last one: chunk 2 is not newer" in found
    assert "4 messages are not in the bag (1 topics, most on /joint_states: 4)" in found


def test_reasons_that_differ_in_numbers_only_are_told_once():
    reasons = ["camera head is 0.31 s old (limit 0.25 s)", "no instruction", "camera head is 0.40 s old (limit 0.25 s)"]
    assert _alike(reasons) == [("camera head is 0.31 s old (limit 0.25 s)", 2), ("no instruction", 1)]


def test_modes_become_stretches_of_time(bag_path):
    with Bag(bag_path) as bag:
        spans = mode_spans(read_episode(bag))
    assert [(mode.name, round(begin_s, 3)) for mode, begin_s, _ in spans] == [("HOLD", -0.45), ("POLICY", 0.083)]


def test_a_view_puts_image_prediction_and_truth_of_one_frame_together(bag_path):
    with Bag(bag_path) as bag:
        episode = read_episode(bag)
        ((head, left, _),) = read_pictures(bag, episode, [bag.start_ns + 1_900_000_000]).views
    assert head.stamp_ns == SyntheticBag.START_NS + 2_000_000_000
    assert head.image.shape == (18, 32, 3) and int(head.image.mean()) == pytest.approx(100, abs=2)
    assert head.predicted_m.shape == head.true_m.shape == (SIZE, SIZE)
    np.testing.assert_array_equal(np.isnan(head.true_m), np.arange(SIZE)[None, :].repeat(SIZE, 0) < SIZE // 2)
    assert head.fitted.shape == (3 * SIZE, 3 * SIZE, 3)
    assert left.image is None and left.predicted_m is None


def test_the_report_is_one_page_with_its_pictures_and_numbers(bag_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "DPI", 40)
    assert report.main([str(bag_path), "--no-video", "--out", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    page = (out / "report.html").read_text()
    assert "lift the red block" in page and ">success<" in page
    assert "http:" not in page and "https:" not in page and "<script src" not in page
    pictures = {path.name for path in out.glob("*.png")}
    assert {
        "film.png",
        "depth_1.png",
        "joints.png",
        "timeline.png",
        "chunk_latency.png",
        "executor_jitter.png",
    } <= pictures
    assert page.count("data:image/png;base64,") == len(pictures)
    written = json.loads((out / "summary.json").read_text())
    required = {"chunk_rate_hz", "commands_sent", "missed_ticks", "depth_abs_rel", "success", "chunk_latency_ms"}
    assert required <= set(written)
    assert set(written["chunk_latency_ms"]) == {"p50", "p95", "max", "mean"}
    printed = capsys.readouterr().out
    assert "missed ticks     2 of 60" in printed and "depth AbsRel     20.0%" in printed


def test_a_bag_without_policy_executor_and_simulator_still_makes_a_report(tmp_path):
    with SyntheticBag(tmp_path / "bag") as bag:
        robot = bag.robot
        for step in range(10):
            bag.joints(robot.limbs[0].topics.arm_feedback, step / 10, np.zeros(6))
    made = report.write_report(tmp_path / "bag", tmp_path / "out", video=False)
    assert made.summary["success"] is None and made.summary["chunk_rate_hz"] is None
    assert made.summary["commands_sent"] is None and made.summary["depth_abs_rel"] is None
    assert "The bag holds no action chunk." in made.html.read_text()
    assert "not reported" in report.table(made.summary)


@pytest.mark.parametrize("kind", ["missing", "empty", "unfinished"])
def test_what_is_no_episode_is_an_error_that_names_it(kind, tmp_path, capsys):
    path = tmp_path / "bag"
    if kind == "empty":
        with SyntheticBag(path):
            pass
    elif kind == "unfinished":
        path.mkdir()
    assert report.main([str(path), "--out", str(tmp_path / "out")]) == 1
    complaint = {"missing": "does not exist", "empty": "holds no messages", "unfinished": "has no metadata.yaml"}[kind]
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fields, complaint", [({"encoding": "rgb8"}, "encoding 'rgb8'"), ({"step": 4}, "has step 4")])
def test_a_wrong_depth_image_is_named(fields, complaint):
    values = {"encoding": "32FC1", "is_bigendian": 0, "width": 4, "height": 2, "step": 16, "data": bytes(32)}
    with pytest.raises(ValueError, match=complaint):
        depth_image(SimpleNamespace(**{**values, **fields}))


def test_depth_in_millimetres_becomes_metres_with_nothing_where_nothing_was_seen():
    data = np.array([[0, 1500]], dtype=">u2").tobytes()
    message = SimpleNamespace(encoding="16UC1", is_bigendian=1, width=2, height=1, step=4, data=data)
    np.testing.assert_allclose(depth_image(message), [[np.nan, 1.5]], rtol=1e-6)
