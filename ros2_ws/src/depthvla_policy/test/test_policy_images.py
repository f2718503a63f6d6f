"""A picture is decoded whole and in its colours, or refused."""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from depthvla_policy.policy.camera_images import EncodedImage, camera_image, network_image
from depthvla_policy.policy.images import PNG, RAW_ENCODINGS, ImageFit, decode_depth_mm, decode_jpeg, decode_raw

RNG = np.random.default_rng(0)
RGB = cv2.resize(RNG.integers(0, 255, (9, 16, 3), np.uint8), (320, 180), interpolation=cv2.INTER_CUBIC)


def encode(extension, image=RGB, *options):
    return cv2.imencode(extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image, options)[
        1
    ].tobytes()


JPEG = encode(".jpg")
RESTARTING = encode(".jpg", RGB, cv2.IMWRITE_JPEG_RST_INTERVAL, 20)
PROGRESSIVE = encode(".jpg", RGB, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


def damages(whole):
    middle = len(whole) // 2
    return {
        "cut in the middle": whole[:middle],
        "its last two bytes missing": whole[:-2],
        "zeros from the middle on": whole[:middle] + bytes(len(whole) - middle),
        "a packet lost": whole[:middle] + whole[middle + 512 :],
        "a packet of zeros": whole[:middle] + bytes(512) + whole[middle + 512 :],
        "only its header": whole[:100],
    }


@pytest.mark.parametrize("kind", damages(JPEG))
@pytest.mark.parametrize("whole", [JPEG, RESTARTING, PROGRESSIVE], ids=["baseline", "restart markers", "progressive"])
def test_a_damaged_jpeg_is_refused_wherever_the_damage_is(whole, kind):
    with pytest.raises(ValueError, match="not a whole JPEG"):
        decode_jpeg(damages(whole)[kind])


@pytest.mark.parametrize("kind", damages(encode(".png")))
def test_a_damaged_png_is_refused(kind):
    with pytest.raises(ValueError, match="not a whole PNG"):
        decode_jpeg(damages(encode(".png"))[kind])


def test_a_png_with_one_wrong_bit_is_refused():
    wrong = bytearray(encode(".png"))
    wrong[len(wrong) // 2] ^= 4
    with pytest.raises(ValueError, match="checksum"):
        decode_jpeg(bytes(wrong))
    depth = bytearray(encode(".png", RNG.integers(0, 2**16, (18, 32), np.uint16)))
    depth[len(depth) // 2] ^= 4
    with pytest.raises(ValueError, match="checksum"):
        decode_depth_mm(bytes(depth))


@pytest.mark.parametrize("whole", [JPEG, RESTARTING, PROGRESSIVE, JPEG + bytes(500)])
def test_a_whole_jpeg_has_the_pixels_that_opencv_gives_it(whole):
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(decode_jpeg(whole), expected)


def test_a_whole_png_comes_back_exactly_and_a_grey_jpeg_as_rgb():
    np.testing.assert_array_equal(decode_jpeg(encode(".png")), RGB)
    grey = decode_jpeg(encode(".jpg", RGB[..., 0]))
    assert grey.shape == RGB.shape and np.ptp(grey, axis=2).max() == 0


def test_depth_is_not_taken_for_colours_nor_colours_for_depth():
    with pytest.raises(ValueError, match="depth and no colours"):
        decode_jpeg(encode(".png", np.full((18, 32), 1000, np.uint16)))
    with pytest.raises(ValueError, match="16-bit PNG"):
        decode_depth_mm(encode(".png"))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"no image", PNG, PNG + struct.pack(">I4s", 2**31, b"IHDR"), b"BM" + bytes(60)]
)
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ValueError, match="bytes"):
        decode_jpeg(data)
    with pytest.raises(ValueError, match="bytes"):
        decode_depth_mm(data)


def test_a_png_without_pixels_is_refused():
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)), (b"IEND", b"")]
    data = PNG + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    with pytest.raises(ValueError, match="PNG"):
        decode_jpeg(data)


def mosaic(pattern):
    """(H, W) of RGB under a Bayer pattern, named by its first two rows."""
    out = np.empty(RGB.shape[:2], np.uint8)
    for place, letter in enumerate(pattern):
        row, column = divmod(place, 2)
        out[row::2, column::2] = RGB[row::2, column::2, "rgb".index(letter)]
    return out


def yuv(*, luma_first):
    """(H, W, 2) of RGB by ITU-R BT.601, chroma of every other pixel."""
    r, g, b = np.moveaxis(RGB.astype(float), 2, 0)
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    out = np.empty((*y.shape, 2))
    out[..., 0], out[:, ::2, 1], out[:, 1::2, 1] = y, u[:, ::2], v[:, ::2]
    out = np.rint(out).astype(np.uint8)
    return out if luma_first else out[..., ::-1]


ALPHA = np.full((*RGB.shape[:2], 1), 7, np.uint8)
RAW = {
    "rgb8": RGB,
    "bgr8": RGB[..., ::-1],
    "8UC3": RGB[..., ::-1],
    "rgba8": np.concatenate([RGB, ALPHA], 2),
    "bgra8": np.concatenate([RGB[..., ::-1], ALPHA], 2),
    "8UC4": np.concatenate([RGB[..., ::-1], ALPHA], 2),
    "yuv422": yuv(luma_first=False),
    "uyvy": yuv(luma_first=False),
    "yuv422_yuy2": yuv(luma_first=True),
    "yuyv": yuv(luma_first=True),
    **{f"bayer_{pattern}8": mosaic(pattern) for pattern in ("rggb", "bggr", "gbrg", "grbg")},
}


@pytest.mark.parametrize("encoding", RAW_ENCODINGS)
def test_raw_images_of_cv_bridges_encodings_become_rgb(encoding):
    rows = np.ascontiguousarray(RAW[encoding]).reshape(180, -1)
    padded = np.pad(rows, ((0, 0), (0, 6)), constant_values=255)
    found = decode_raw(padded.tobytes(), height=180, width=320, step=padded.shape[1], encoding=encoding)
    assert found.shape == RGB.shape
    # Chroma of every other pixel, and a mosaic's colours, are interpolated.
    exact = encoding[0] not in "uyb" or encoding.startswith("bgr")
    assert np.abs(found.astype(int) - RGB)[2:-2, 2:-2].mean() <= (0 if exact else 2.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoding": "mono8"}, "'mono8' is not allowed"),
        ({"encoding": "16UC1"}, "'16UC1' is not allowed"),
        ({"step": 959}, "are no 320 x 180"),
        ({"height": 179}, "are no 320 x 179"),
        ({"width": 0, "height": 0}, "are no 0 x 0"),
    ],
)
def test_a_raw_image_that_is_none_is_refused(changed, message):
    about = {"height": 180, "width": 320, "step": 960, "encoding": "rgb8"} | changed
    with pytest.raises(ValueError, match=message):
        decode_raw(RGB.tobytes(), **about)


def test_an_image_is_decoded_then_rectified_then_fitted_whatever_it_comes_as():
    def rectify(image):
        return image[:, ::-1]

    fit = ImageFit(32, "crop")
    data = RGB.tobytes()
    layout = {"encoding": "rgb8", "height": 180, "width": 320, "step": 960}
    for image in (
        RGB,  # a video's frame
        EncodedImage(encode(".png")),
        SimpleNamespace(format="png", data=np.frombuffer(encode(".png"), np.uint8)),  # a message from a bag
        SimpleNamespace(data=np.frombuffer(data, np.uint8), **layout),
        EncodedImage(data, **layout),
    ):
        np.testing.assert_array_equal(camera_image(image), RGB)
        np.testing.assert_array_equal(camera_image(image, rectify), rectify(RGB))
        np.testing.assert_array_equal(network_image(image, fit, rectify), fit.apply(rectify(RGB)))
    with pytest.raises(ValueError, match="^/head: 7 bytes are not a JPEG or PNG image"):
        camera_image(EncodedImage(b"nothing", topic="/head"))
