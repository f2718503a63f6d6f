"""A calibrated camera's images become those of a pinhole, from a YAML file and from CameraInfo alike."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from depthvla_policy.policy import calibration
from depthvla_policy.policy.calibration import Rectifier

WIDTH, HEIGHT = 640, 360
K = [310.0, 0.0, 322.0, 0.0, 308.0, 176.0, 0.0, 0.0, 1.0]
STRAIGHT_K = [250.0, 0.0, 318.0, 0.0, 250.0, 181.0, 0.0, 0.0, 1.0]
MODELS = {
    "plumb_bob": [-0.28, 0.07, 0.001, -0.0005, -0.006],
    "rational_polynomial": [0.4, -0.02, 0.0005, -0.0003, 0.01, 0.75, 0.05, 0.02],
    "equidistant": [-0.03, 0.004, -0.002, 0.0003],
}


def projection(k):
    return [*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0]


def description(model="plumb_bob", **changes):
    """As camera_calibration writes it."""

    def matrix(rows, data):
        return {"rows": rows, "cols": len(data) // rows, "data": data}

    return {
        "image_width": WIDTH,
        "image_height": HEIGHT,
        "camera_name": "head",
        "camera_matrix": matrix(3, K),
        "distortion_model": model,
        "distortion_coefficients": matrix(1, MODELS.get(model, [0.1] * 5)),
        "rectification_matrix": matrix(3, np.eye(3).ravel().tolist()),
        "projection_matrix": matrix(3, projection(STRAIGHT_K)),
        **changes,
    }


def written(folder, content):
    path = folder / "head.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def camera_info(model="plumb_bob", **changes):
    values = {"width": WIDTH, "height": HEIGHT, "distortion_model": model, "k": K, "d": MODELS[model]}
    return SimpleNamespace(**{**values, "p": projection(STRAIGHT_K), **changes})


def seen(model, rays):
    """(N, 2) pixels of rays (N, 2) x/z and y/z in the camera's own, distorted image."""
    points = np.column_stack([rays, np.ones(len(rays))])[:, None]
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    k, d = np.array(K).reshape(3, 3), np.array(MODELS[model])
    return project(points, np.zeros(3), np.zeros(3), k, d)[0].reshape(-1, 2)


def grid_picture(model):
    """What a lens makes of a grid of straight lines, drawn at eight times the size and averaged; and the lines' places
    on the straight image: columns and rows in pixels.
    """
    zoom, k = 8, np.array(STRAIGHT_K).reshape(3, 3)
    columns, rows = np.arange(90, WIDTH - 60, 76.0), np.arange(60, HEIGHT - 40, 62.0)
    fine = np.zeros((zoom * HEIGHT, zoom * WIDTH), np.uint8)
    along = np.linspace(-0.5, 1.5, 600)
    lines = [np.column_stack([np.full(600, c), along * HEIGHT]) for c in columns]
    lines += [np.column_stack([along * WIDTH, np.full(600, r)]) for r in rows]
    for line in lines:
        line = line[np.all((line > -60) & (line < [WIDTH + 60, HEIGHT + 60]), axis=1)]
        pixels = (seen(model, (line - k[:2, 2]) / k[[0, 1], [0, 1]]) + 0.5) * zoom - 0.5
        cv2.polylines(fine, [np.round(pixels * 16).astype(np.int32)], False, 255, 3 * zoom, cv2.LINE_AA, 4)
    small = cv2.resize(fine, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return np.repeat(small[..., None], 3, axis=2), columns, rows


def line_places(image, columns, rows):
    """Where lines are met half way between their crossings, less where they should be: the centre of their grey."""
    grey, window, offsets = image[..., 0].astype(float), np.arange(-5, 6), []

    def centre(strip):
        return float(np.sum(strip * window) / np.sum(strip))

    for column in columns:
        for row in (rows[:-1] + rows[1:]) // 2:
            offsets.append(centre(grey[int(row), int(column) + window]))
    for row in rows:
        for column in (columns[:-1] + columns[1:]) // 2:
            offsets.append(centre(grey[int(row) + window, int(column)]))
    return np.array(offsets)


@pytest.mark.parametrize("model", MODELS)
def test_lines_that_a_lens_bends_are_straight_and_in_place(model, tmp_path):
    picture, columns, rows = grid_picture(model)
    straight = Rectifier(calibration.load(written(tmp_path, description(model))))(picture)
    assert np.abs(line_places(straight, columns, rows)).max() < 0.5
    k, at = np.array(STRAIGHT_K).reshape(3, 3), np.array([[columns[0], rows[0]]])
    bent = seen(model, (at - k[:2, 2]) / k[[0, 1], [0, 1]])
    assert np.abs(bent - at).max() > 5.0  # or there was nothing to straighten


@pytest.mark.parametrize("model", MODELS)
def test_a_file_and_camera_info_give_the_same_image(model, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    from_file = calibration.load(written(tmp_path, description(model)))
    from_topic = calibration.from_camera_info(camera_info(model))
    assert from_file.same_as(from_topic)
    np.testing.assert_array_equal(Rectifier(from_file)(picture), Rectifier(from_topic)(picture))


def test_a_calibration_is_read_as_it_was_described(tmp_path):
    found = calibration.from_camera_info(camera_info())
    assert calibration.load(written(tmp_path, calibration.describe(found))).same_as(found)


def test_the_rectified_camera_is_a_pinhole_of_the_projection_matrix():
    straight = calibration.from_camera_info(camera_info()).rectified()
    assert straight.k.ravel().tolist() == STRAIGHT_K and not straight.d.any() and straight.is_rectified


@pytest.mark.parametrize("p", [[0.0] * 12, projection(K)])
@pytest.mark.parametrize(("name", "d"), [("plumb_bob", []), ("", []), ("none", [0.0]), ("equidistant", [0.0] * 4)])
def test_a_camera_without_distortion_keeps_its_image(name, d, p):
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    found = calibration.from_camera_info(camera_info(distortion_model=name, d=d, p=p))
    assert found.is_rectified and Rectifier(found)(picture) is picture


def test_without_a_projection_matrix_the_camera_matrix_stays(tmp_path):
    content = description()
    del content["projection_matrix"]
    found = calibration.load(written(tmp_path, content))
    assert found.rectified().k.ravel().tolist() == K
    assert found.same_as(calibration.from_camera_info(camera_info(p=[0.0] * 12)))


@pytest.mark.parametrize("changes", [{"k": [0.0] * 9}, {"width": 0}, {"height": 0}])
def test_zeros_are_no_calibration(changes):
    assert calibration.from_camera_info(camera_info(**changes)) is None


def test_an_image_of_another_size_is_refused():
    rectify = Rectifier(calibration.from_camera_info(camera_info()))
    with pytest.raises(ValueError, match="the image is 320x180; its calibration is for 640x360"):
        rectify(np.zeros((180, 320, 3), np.uint8))


def data(*values):
    return {"rows": 1, "cols": len(values), "data": list(values)}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"distortion_model": "thin_prism"}, "'thin_prism'; allowed: plumb_bob, rational_polynomial, equidistant"),
        ({"distortion_coefficients": data(0.1, 0.2)}, "plumb_bob has 2 coefficients; allowed: 4 or 5"),
        ({"distortion_coefficients": data(0.1, 0.2, 0.0, 0.0, float("nan"))}, "must be finite"),
        ({"camera_matrix": data(*K[:4], float("inf"), *K[5:])}, "camera matrix .* must be finite"),
        ({"camera_matrix": data(-1.0, *K[1:])}, "focal lengths above 0"),
        ({"camera_matrix": data(*K[:8], 2.0)}, "last row 0 0 1"),
        ({"camera_matrix": data(1.0)}, "camera_matrix .* a list of 9 numbers"),
        ({"camera_matrix": K}, "camera_matrix .* a list of 9 numbers"),
        ({"projection_matrix": data(*projection(K)[:5], -1.0, *projection(K)[6:])}, "projection matrix"),
        ({"distortion_coefficients": data("a")}, "could not convert"),
        ({"image_width": 0}, "0x360; both must be above 0"),
    ],
)
def test_what_is_no_calibration_is_named(changes, text, tmp_path):
    path = written(tmp_path, description(**changes))
    with pytest.raises(ValueError, match=f"^{path}: .*{text}"):
        calibration.load(path)


@pytest.mark.parametrize("content", ["", "[1, 2]", "image_width: 640\n", "a: ["])
def test_what_is_no_calibration_file_is_named(content, tmp_path):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=f"^{path}: "):
        calibration.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.yaml does not exist"):
        calibration.load(tmp_path / "nowhere.yaml")


def test_a_calibration_that_cannot_be_is_refused_from_a_topic_too():
    with pytest.raises(ValueError, match="must be finite"):
        calibration.from_camera_info(camera_info(k=[float("nan"), *K[1:]]))
