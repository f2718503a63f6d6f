"""A node's calibration comes from a file or a topic, and a policy that is to see rectified images sees no others."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from test_nodes_policy import HEIGHT, WIDTH, Rig

TOPIC = "/camera_info"
K = np.array([[50.0, 0.0, 31.5], [0.0, 50.0, 17.5], [0.0, 0.0, 1.0]])
RECTIFIED_K = np.array([[40.0, 0.0, 30.5], [0.0, 42.0, 18.5], [0.0, 0.0, 1.0]])
BENT = [-0.3, 0.08, 0.001, 0.0, 0.0]
PICTURE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def camera_info(**changes):
    from sensor_msgs.msg import CameraInfo

    p = np.hstack([RECTIFIED_K, np.zeros((3, 1))]).ravel()
    values = {"height": HEIGHT, "width": WIDTH, "distortion_model": "plumb_bob", "d": BENT, "k": K.ravel(), "p": p}
    return CameraInfo(**{**values, **changes})


def written(path):
    values = {
        "image_width": WIDTH,
        "image_height": HEIGHT,
        "camera_matrix": {"data": K.ravel().tolist()},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"data": BENT},
        "projection_matrix": {"data": np.hstack([RECTIFIED_K, np.zeros((3, 1))]).ravel().tolist()},
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("torch", reason="torch is not installed")
    import tiny_model

    return tiny_model.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture
def heard(ros):
    """Makes a calibration in a node, `send`s CameraInfo to it and returns it when the last one has come."""
    from sensor_msgs.msg import CameraInfo

    from depthvla_control.ros import qos
    from depthvla_policy.nodes.policy.camera_calibration import CameraCalibration

    with ros.Probe("calibrations") as probe:
        publisher = probe.publisher(CameraInfo, TOPIC, qos.stream("reliable", 10))

        def make(*messages, file="", rectify=True):
            options = {"topic": TOPIC, "file": str(file), "rectify": rectify, "reliability": "reliable"}
            found = CameraCalibration(probe.node, "head", **options)
            if not file:
                probe.wait_for(publisher.get_subscription_count, what="the subscription")
                taken, newest = [], found._infos.newest
                found._infos.newest = lambda: taken.pop(0) if taken else None
                for message in messages:
                    publisher.publish(message)
                    taken.append(probe.wait_for(newest, what="CameraInfo"))
            return found

        yield make


def test_a_file_and_the_topic_rectify_alike_and_tell_of_a_pinhole(heard, tmp_path):
    by_topic, by_file = heard(camera_info()), heard(file=written(tmp_path / "head.yaml"))
    rectified = by_topic.rectify(PICTURE)
    np.testing.assert_array_equal(rectified, by_file.rectify(PICTURE))
    assert not np.array_equal(rectified, PICTURE)
    for found in (by_topic, by_file):
        np.testing.assert_array_equal(found.of_images().k, RECTIFIED_K)
        assert not found.of_images().d.any()


def test_what_is_not_to_be_rectified_stays_as_it_came(heard):
    found = heard(camera_info(), rectify=False)
    assert found.rectify(PICTURE) is PICTURE
    np.testing.assert_array_equal(found.of_images().k, K)
    assert found.of_images().d.tolist() == BENT


def test_a_camera_that_is_calibrated_anew_is_rectified_anew(heard):
    found = heard(camera_info(), camera_info(d=[0.2, 0.0, 0.0, 0.0, 0.0]))
    before, after = found.rectify(PICTURE), found.rectify(PICTURE)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, found.rectify(PICTURE))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"k": [0.0] * 9}, "^camera head: no calibration has come on /camera_info"),
        ({"distortion_model": "mei"}, "^camera head: /camera_info says that distortion model is 'mei'; allowed"),
        ({"d": [float("nan")] * 5}, "must be finite"),
        ({"width": 2 * WIDTH}, "^camera head: the image is 64x36; its calibration is for 128x36"),
    ],
)
def test_without_a_usable_calibration_there_is_no_image(heard, change, text):
    found = heard(camera_info(**change))
    for _ in range(2):
        with pytest.raises(ValueError, match=text):
            found.rectify(PICTURE)


def test_a_policy_makes_no_chunk_of_a_camera_that_cannot_be_rectified(ros, robot, home, checkpoint, tmp_path):
    from sensor_msgs.msg import CameraInfo

    parameters = {
        "cameras.head.rectify": True,
        "cameras.wrist_left.rectify": True,
        "cameras.wrist_left.calibration_file": str(written(tmp_path / "left.yaml")),
    }
    rig = Rig(ros, robot, home, checkpoint, name="rectifying_policy_node", **parameters)

    def publish_as(info):
        publisher, _ = rig.robot._infos["head"]
        rig.robot._infos["head"] = (publisher, info)

    try:
        publish_as(CameraInfo(height=HEIGHT, width=WIDTH))
        status = rig.wait_for_reason("camera head: no calibration has come on")
        assert not status.producing and not rig.chunks
        publish_as(camera_info())
        rig.wait_for_chunks()
        infos = {
            name: rig.probe.listen(CameraInfo, f"/rectifying_policy_node/depth/{name}/camera_info")
            for name in ("head", "wrist_left", "wrist_right")
        }
        rig.probe.wait_for(lambda: all(infos.values()), what="camera_info of depth")
        for name, k in (("head", RECTIFIED_K), ("wrist_left", RECTIFIED_K), ("wrist_right", K)):
            info = infos[name][-1]
            assert not any(info.d)
            # The tiny model takes the central square of the image.
            np.testing.assert_allclose(info.k[4], k[1, 1] * info.height / HEIGHT)
        publish_as(camera_info(width=2 * WIDTH, height=2 * HEIGHT))
        rig.wait_for_reason("the image is 64x36; its calibration is for 128x72")
    finally:
        rig.close()


class ParameterisedNode:
    """Stands for a policy node whose parameters are these, and for which topics are not listened to."""

    def __init__(self, **parameters):
        self._parameters = parameters

    def value(self, name):
        _, _, kind = name.rpartition(".")
        return self._parameters.get(name, {"rectify": False, "calibration_file": ""}.get(kind, f"/{name}"))


def policy(rectified=()):
    return SimpleNamespace(model_id="table@1", cameras=("head", "wrist_left"), rectified=rectified)


def test_a_checkpoint_of_rectified_images_is_not_shown_others(ros):
    from depthvla_policy.nodes.policy.camera_calibration import of_policy

    with pytest.raises(ValueError, match="table@1 was trained on rectified images: cameras.head.rectify must be true"):
        of_policy(ParameterisedNode(), policy(rectified=("head",)), for_depth=True)


def test_only_cameras_that_need_a_calibration_have_one(ros, tmp_path):
    from depthvla_policy.nodes.policy.camera_calibration import of_policy

    files = {f"cameras.{name}.calibration_file": written(tmp_path / name) for name in ("head", "wrist_left")}
    node = ParameterisedNode(**files, **{"cameras.head.rectify": True})
    assert list(of_policy(node, policy(rectified=("head",)), for_depth=False)) == ["/cameras.head.topic"]
    assert len(of_policy(node, policy(), for_depth=True)) == 2


def test_a_calibration_file_that_is_not_there_is_no_start(ros):
    from depthvla_policy.nodes.policy.camera_calibration import of_policy

    node = ParameterisedNode(**{"cameras.head.calibration_file": "/nowhere/head.yaml"})
    with pytest.raises(FileNotFoundError, match="/nowhere/head.yaml does not exist; wanted: a camera"):
        of_policy(node, policy(), for_depth=True)
