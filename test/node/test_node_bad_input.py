"""The rows of the table of bad input that test_node_faults and test_node_odd_pictures leave."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from stand_in import picture

RGB = picture()


def levels():
    from diagnostic_msgs.msg import DiagnosticStatus

    return DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is large: a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose frame header says another size than its data has."""
    encoded = bytearray(cv2.imencode(".jpg", RGB)[1].tobytes())
    at = next(at for at in range(len(encoded)) if encoded[at : at + 2] == b"\xff\xc0")
    encoded[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(encoded)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (png_of(30_000, 30_000), "too_large: image of 30000x30000"),
        (png_of(8_193, 16), "too_large: image of 8193x16"),
        (png_of(8_100, 8_100), "too_large: image of 8100x8100"),  # sides are allowed, 66 megapixels are not
        (jpeg_of(60_000, 60_000), "too_large: image of 60000x60000"),
    ],
    ids=["bomb", "side", "megapixels", "jpeg"],
)
def test_compressed_picture_that_would_be_huge_is_dropped_before_it_is_unpacked(bench, monkeypatch, data, text):
    unpacked = []
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: unpacked.append(arguments) or decode(*arguments))
    bench = bench(front__transport="compressed", grid__enabled=False)

    bench.send_compressed(data)
    bench.wait_for_status(levels()[2], text)

    assert unpacked == []
    assert bench.masks == []
    good = bench.send_compressed(cv2.imencode(".png", RGB[..., ::-1])[1].tobytes())
    bench.wait(lambda: bench.masks, "no mask")
    assert bench.masks[0].header == good


def test_binning_and_region_are_worked_into_the_grid(bench, road, forward):
    """The road scene as every second pixel of the lower right part of a larger sensor: the same grid."""
    from sensor_msgs.msg import RegionOfInterest

    bench = bench(front__pose=forward)
    plain = np.array(bench.segment_with_grid(road).data, np.int8)
    height, width = road.shape[:2]
    region = RegionOfInterest(x_offset=100, y_offset=60, width=2 * width, height=2 * height)
    # K of the sensor: pixel centres of the picture lie at 2 u + 0.5 of the region
    k = [600.0, 0.0, 2 * 159.5 + 0.5 + 100, 0.0, 600.0, 2 * 119.5 + 0.5 + 60, 0.0, 0.0, 1.0]
    binned = {"binning_x": 2, "binning_y": 2, "roi": region, "k": k, "width": 1000, "height": 800}
    before = len(bench.infos)

    def send() -> None:
        bench.send_info(**binned)
        bench.segment(road)

    bench.graph.repeat(
        send, lambda: any(info.binning_x == 2 for info in bench.infos[before:]), "the new camera_info", 20
    )
    mask = bench.segment(road)
    bench.wait(lambda: bench.grids[-1].header.stamp == mask.header.stamp, "no grid")

    np.testing.assert_array_equal(np.array(bench.grids[-1].data, np.int8), plain)


def test_picture_without_confidence_is_no_fault_and_all_unknown(bench, road, forward):
    bench = bench(front__pose=forward)
    bench.segment_with_grid(road)
    road[..., 1] = 255  # the stand-in knows nothing here

    mask = bench.segment(road)
    bench.wait(lambda: bench.grids[-1].header.stamp == mask.header.stamp, "no grid")

    assert set(mask.data) == {255}
    assert set(bench.grids[-1].data) == {-1}
    for _ in range(3):
        bench.segment(road)
    status = bench.wait_for_status(levels()[0], "running")
    assert {entry.key: entry.value for entry in status.values}["unknown_share"] == "1.0000"
