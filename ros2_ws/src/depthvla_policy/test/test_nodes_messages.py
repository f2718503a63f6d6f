from __future__ import annotations

import dataclasses
import re
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from depthvla_control.chunk import Chunk
from depthvla_control.execution_plan import Plan
from depthvla_control.refusal import Reason, Refusal

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")

from sensor_msgs.msg import CompressedImage, Image, PointField  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from depthvla_control.ros import messages  # noqa: E402
from depthvla_evaluation.viewer.clouds import depth_colours  # noqa: E402
from depthvla_policy.nodes.policy import depth_publisher
from depthvla_policy.policy.camera_images import EncodingError, encoded_image  # noqa: E402
from depthvla_policy.policy.images import ImageFit  # noqa: E402
from depthvla_policy.policy.point_clouds import points  # noqa: E402
from depthvla_policy.ros import image_messages

T0 = 1_700_000_000_123_456_789
PERIOD_NS = 66_666_667
RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture
def chunk(home):
    return Chunk(T0, 7, PERIOD_NS, home + 0.01 * np.arange(16)[:, None], "model@0123")


def test_a_chunk_survives_the_way_there_and_back(chunk, robot):
    back = messages.chunk_from_message(messages.chunk_to_message(chunk, robot), robot)
    np.testing.assert_array_equal(back.positions, chunk.positions)
    assert (back.stamp_ns, back.sequence, back.period_ns, back.model_id) == (T0, 7, PERIOD_NS, "model@0123")


def change_names(message):
    message.left_arm.joint_names[0] = "shoulder"


def swap_limbs(message):
    message.left_arm, message.right_arm = message.right_arm, message.left_arm


def drop_point(message):
    message.right_arm.points = message.right_arm.points[:-1]


def shorten_point(message):
    message.right_arm.points[4].positions = message.right_arm.points[4].positions[:-1]


def inflate_horizon(message):
    message.horizon = 4_000_000_000


def repeat_time(message):
    message.left_arm.points[3].time_from_start = message.left_arm.points[2].time_from_start


@pytest.mark.parametrize(
    ("change", "reason", "text"),
    [
        (change_names, Reason.WRONG_JOINTS, "shoulder"),
        (swap_limbs, Reason.WRONG_JOINTS, "right_arm_joint1"),
        (drop_point, Reason.WRONG_COUNT, "15 points"),
        (shorten_point, Reason.WRONG_COUNT, "6 positions at step 4"),
        (inflate_horizon, Reason.WRONG_COUNT, "4000000000"),
        (repeat_time, Reason.WRONG_TIMING, "step 3"),
    ],
)
def test_a_message_that_is_no_chunk_is_refused_with_what_is_wrong(chunk, robot, change, reason, text):
    message = messages.chunk_to_message(chunk, robot)
    change(message)
    refusal = messages.chunk_from_message(message, robot)
    assert isinstance(refusal, Refusal) and refusal.reason is reason
    assert text in refusal.message and "chunk 7" in refusal.message


@pytest.fixture
def plan(home):
    return Plan(T0, 7, PERIOD_NS, 210_000_000, home + 0.01 * np.arange(16)[:, None])


@pytest.mark.parametrize("steps", [0, 1, 16])
def test_a_plan_survives_the_way_there_and_back(plan, robot, steps):
    plan = dataclasses.replace(plan, positions=plan.positions[:steps])
    back = messages.plan_from_message(messages.plan_to_message(plan, robot), robot)
    np.testing.assert_array_equal(back.positions, plan.positions)
    assert (back.stamp_ns, back.sequence, back.period_ns, back.latency_ns) == (T0, 7, PERIOD_NS, 210_000_000)


def negative_latency(message):
    message.latency = messages.duration_message(-1)


def no_duration(message):
    message.step_duration = messages.duration_message(0)
    for point in [*message.left_arm.points, *message.right_arm.points]:
        point.time_from_start = messages.duration_message(0)


def not_a_number(message):
    message.right_arm.points[2].positions[0] = np.nan


@pytest.mark.parametrize(
    ("change", "reason", "text"),
    [
        (change_names, Reason.WRONG_JOINTS, "shoulder"),
        (drop_point, Reason.WRONG_COUNT, "15 points; expected 16"),
        (shorten_point, Reason.WRONG_COUNT, "6 positions at step 4"),
        (repeat_time, Reason.WRONG_TIMING, "step 3"),
        (negative_latency, Reason.WRONG_TIMING, "allowed: 0 or more"),
        (no_duration, Reason.WRONG_TIMING, "allowed: 0.005 to 1.0"),
        (not_a_number, Reason.NON_FINITE, "step 2"),
    ],
)
def test_a_message_that_is_no_plan_is_refused_with_what_is_wrong(plan, robot, change, reason, text):
    message = messages.plan_to_message(plan, robot)
    change(message)
    refusal = messages.plan_from_message(message, robot)
    assert isinstance(refusal, Refusal) and refusal.reason is reason
    assert text in refusal.message and "plan 7" in refusal.message


@pytest.mark.parametrize("duration_ns", [0, 1, 999_999_999, 10**9, -1, -1_500_000_000])
def test_durations_keep_their_nanoseconds(duration_ns):
    assert messages.nanoseconds(messages.duration_message(duration_ns)) == duration_ns


def raw(encoding, pixels, padding=0):
    rows = np.pad(pixels.reshape(6, -1), ((0, 0), (0, padding)))
    return Image(encoding=encoding, height=6, width=8, step=rows.shape[1], data=rows.tobytes())


def test_an_image_equals_another_with_the_same_bytes():
    message = raw("rgb8", RGB)
    image, again = (encoded_image(message, "/cam") for _ in range(2))
    assert image == again
    assert image != encoded_image(raw("rgb8", RGB ^ 1), "/cam")


def test_wrong_encodings_name_topic_encoding_and_what_is_allowed():
    formats = (
        "h264",
        "32FC1; compressedDepth png",
        "16UC1; png compressed",
        "16UC1; png compressed 16UC1",
        "mono16; png compressed",
        "mono8; jpeg compressed mono8",
        "bayer_rggb8; jpeg compressed",
    )
    for message in (raw("mono8", RGB), *(CompressedImage(format=text) for text in formats)):
        wrong = re.escape(message.encoding if isinstance(message, Image) else message.format)
        with pytest.raises(EncodingError, match=f"/cam: .*'{wrong}'.* allowed"):
            encoded_image(message, "/cam")


def test_an_image_of_the_wrong_size_is_refused():
    message = raw("rgb8", RGB)
    message.height = 7
    with pytest.raises(ValueError, match="/cam: .* no 8 x 7 rgb8 image") as raised:
        encoded_image(message, "/cam")
    assert not isinstance(raised.value, EncodingError)


DEPTH = np.array([[0.5, np.nan], [1.0, 2.0]], np.float32)
HEADER = Header(stamp=messages.time_message(T0), frame_id="optical")


def test_depth_is_metres_with_nan_where_unknown():
    message = image_messages.depth_message(HEADER, DEPTH)
    assert (message.encoding, message.height, message.width, message.step) == ("32FC1", 2, 2, 8)
    assert (message.header.frame_id, messages.nanoseconds(message.header.stamp)) == ("optical", T0)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32).reshape(2, 2), DEPTH)


def test_the_colour_image_is_warm_where_it_is_near_and_black_where_unknown():
    message = image_messages.colour_message(HEADER, depth_colours(DEPTH, 0.5, 2.0))
    colours = np.frombuffer(message.data, np.uint8).reshape(2, 2, 3).astype(int)
    assert message.encoding == "rgb8"
    assert colours[0, 0, 0] > colours[0, 0, 2] and colours[1, 1, 2] > colours[1, 1, 0]
    np.testing.assert_array_equal(colours[0, 1], 0)


@pytest.mark.parametrize(("fit", "rows"), [("pad", slice(1, 3)), ("crop", slice(0, 4))])
def test_depth_is_unknown_outside_the_image_and_where_there_is_no_distance(fit, rows):
    predicted = np.ones((4, 4), np.float32)
    predicted[2, 1], predicted[2, 2] = np.inf, 0.0
    known = depth_publisher.known_depth(predicted, ImageFit(8, fit), (9, 18))
    expected = np.full((4, 4), np.nan)
    expected[rows] = 1.0
    expected[2, 1:3] = np.nan
    np.testing.assert_array_equal(known, expected)


@pytest.mark.parametrize(("fit", "left"), [("pad", 0), ("crop", 40)])
def test_points_have_the_colour_that_the_image_has_there(fit, left):
    image = np.zeros((80, 160, 3), np.uint8)
    image[:, left : left + 80] = 200, 100, 50  # the left half of the whole image, or all of its central square
    colours = depth_publisher.pixel_colours(image, ImageFit(64, fit), 4)
    np.testing.assert_array_equal(colours[2, :2], [[200, 100, 50]] * 2)
    assert colours.shape == (4, 4, 3)
    np.testing.assert_array_equal(colours[2, 3], [200, 100, 50] if fit == "crop" else 0)


K = np.array([[2.0, 0.0, 0.5], [0.0, 4.0, 0.5], [0.0, 0.0, 1.0]])


def test_camera_info_is_that_of_the_depth_image():
    info = image_messages.camera_info_message(HEADER, K, (2, 2), "plumb_bob", [0.1, 0.0, 0.0, 0.0, 0.0])
    assert (info.width, info.height, info.k[0], info.p[5], info.d[0]) == (2, 2, 2.0, 4.0, 0.1)


COLOURS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20


def cloud_of(depth_m):
    found, pixels = points(depth_m, K)
    return image_messages.points_message(HEADER, found, COLOURS[pixels[:, 1], pixels[:, 0]])


def read(cloud):
    """The points of a cloud, read as its fields say."""
    formats = {field.name: (np.dtype("<u4" if field.name == "rgb" else "<f4"), field.offset) for field in cloud.fields}
    assert {field.datatype for field in cloud.fields} == {PointField.FLOAT32} and not cloud.is_bigendian
    layout = np.dtype(
        {
            "names": list(formats),
            "formats": [kind for kind, _ in formats.values()],
            "offsets": [offset for _, offset in formats.values()],
            "itemsize": cloud.point_step,
        }
    )
    return np.frombuffer(cloud.data, layout)


def test_points_lie_on_the_rays_of_their_pixels_and_keep_their_colours():
    cloud = cloud_of(DEPTH)
    found = read(cloud)
    expected = [[-0.125, -0.0625, 0.5], [-0.25, 0.125, 1.0], [0.5, 0.25, 2.0]]
    np.testing.assert_allclose(np.column_stack([found[axis] for axis in "xyz"]), expected, atol=1e-6)
    assert [hex(value) for value in found["rgb"]] == ["0x1428", "0x788ca0", "0xb4c8dc"]
    assert (cloud.header.frame_id, cloud.height, cloud.width, cloud.is_dense) == ("optical", 1, 3, True)
    assert cloud.row_step == len(cloud.data) == cloud.width * cloud.point_step


def test_a_cloud_without_a_known_depth_is_empty():
    cloud = cloud_of(np.full((2, 2), np.nan, np.float32))
    assert (cloud.width, len(cloud.data), cloud.row_step) == (0, 0, 0)


@pytest.mark.skipif(find_spec("sensor_msgs_py") is None, reason="sensor_msgs_py comes with a ROS distribution")
def test_sensor_msgs_py_reads_the_points():
    from sensor_msgs_py.point_cloud2 import read_points

    cloud = cloud_of(DEPTH)
    np.testing.assert_allclose(read_points(cloud, ["z"])["z"], [0.5, 1.0, 2.0])


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_rays_of_a_distorted_camera_project_back_onto_their_pixels(model):
    k = np.array([[300.0, 0, 160], [0, 300, 90], [0, 0, 1]])
    d = [0.05, -0.01, 0.0, 0.0] if model == "equidistant" else [0.05, -0.01, 0.001, 0.0, 0.0]
    found, pixels = points(np.ones((180, 320), np.float32), k, d, model)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    back = project(found[:, None], np.zeros(3), np.zeros(3), k, np.array(d))[0]
    np.testing.assert_allclose(back.reshape(-1, 2), pixels, atol=0.05)


@pytest.mark.parametrize(
    "text", ["jpeg", "JPG", "png", "bgr8; jpeg compressed bgr8", "bayer_rggb8; jpeg compressed bgr8"]
)
def test_formats_of_colours_are_taken(text):
    assert encoded_image(CompressedImage(format=text), "/cam").topic == "/cam"
