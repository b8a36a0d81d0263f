"""Measure one frame: what the model says of it, how steady it is, how it agrees with a label, what ground it frees."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import cv2
import numpy as np
import torch

from mfuser_ros.drivable import CameraModel, DrivableArea, GridSpec, View
from mfuser_ros.drivable.grid import FREE_CELL, UNKNOWN_CELL
from mfuser_ros.evaluation.bag.frames import Row, iou_of
from mfuser_ros.evaluation.bag.scheme import Grouping
from mfuser_ros.evaluation.boundary import Boundary
from mfuser_ros.evaluation.drive.record import class_shares, drivable_distance
from mfuser_ros.evaluation.metrics import Calibration, Confusion
from mfuser_ros.evaluation.record import score_columns
from mfuser_ros.evaluation.temporal import FlipCounter, Flips
from mfuser_ros.inference.segmenter import Segmenter
from mfuser_ros.vocabulary import UNKNOWN

FREE_ROLE = "drivable"

GRID = GridSpec()
"""Ground that the drivable area is told on: the node's default."""


@dataclass(frozen=True, eq=False)
class Mounting:
    """Where a camera looks from.

    Attributes:
        camera: the lens, for the size of the pictures.
        T_vehicle_camera: (4, 4) optical frame to vehicle frame, metres.
    """

    camera: CameraModel
    T_vehicle_camera: np.ndarray


@dataclass(frozen=True, eq=False)
class Measured:
    """A frame with all that is shown of it.

    Attributes:
        row: its figures.
        picture: uint8 RGB (H, W, 3).
        label: uint8 (h, w) class ids that stand for the groups of the label, 255 ignored; None without one.
        prediction: uint8 class ids, 255 unknown: of groups like the label where there is one, else the mask (H, W).
        occupancy: int8 (rows, cols); None without a mounting.
        contacts: float32 (N, 4).
    """

    row: Row
    picture: np.ndarray
    label: np.ndarray | None
    prediction: np.ndarray
    occupancy: np.ndarray | None
    contacts: np.ndarray


class FrameMeter:
    """Measures the frames of one camera, in their order."""

    def __init__(self, segmenter: Segmenter, *, score_threshold: float) -> None:
        """Prepare.

        Args:
            segmenter: its threshold says what is unknown in the masks.
            score_threshold: less probable labels count as wrong.
        """
        self._segmenter = segmenter
        self._score_threshold = score_threshold
        self._area = DrivableArea(GRID, segmenter.vocabulary)
        self._flips = FlipCounter(segmenter.vocabulary.ids_with_role((FREE_ROLE,)))

    def measure(
        self,
        picture: np.ndarray,
        time_s: float,
        *,
        groups: np.ndarray | None = None,
        grouping: Grouping | None = None,
        mounting: Mounting | None = None,
    ) -> Measured:
        """Measure a picture.

        Args:
            picture: uint8 RGB (H, W, 3).
            time_s: of the picture, seconds; only differences count.
            groups: uint8 (h, w) label as groups of `grouping`, 255 ignored; None: no label.
            grouping: what the groups are.
            mounting: of the camera; None: no drivable area.
        """
        segmenter = self._segmenter
        probability = None
        if groups is None:
            result = segmenter(picture)
        else:
            height, width = groups.shape
            result, probability = segmenter.with_probabilities(picture, (height, width))
        timing = segmenter.timing
        assert timing is not None  # it has just run
        shares = class_shares(result.mask, len(segmenter.vocabulary))
        levels = np.bincount(result.confidence.ravel(), minlength=256)
        row: Row = {
            "height": picture.shape[0],
            "width": picture.shape[1],
            "latency_ms": timing.preprocess_ms + timing.inference_ms + timing.postprocess_ms,
            "confidence": float(levels @ np.arange(256) / 255 / levels.sum()),
            "unknown_share": float(shares[-1]),
            "labelled": groups is not None,
        }
        row |= {f"share_{name}": float(shares[index]) for index, name in enumerate(segmenter.vocabulary.names)}
        self._flips.flips = Flips()  # of this frame alone
        self._flips.add(picture, result.mask, time_s)
        row["flips"] = [float(value) for value in astuple(self._flips.flips)]
        row["flips_per_s"] = self._flips.flips.flips_per_s
        prediction = result.mask
        if groups is not None and probability is not None and grouping is not None:
            ids, best = best_group(probability, grouping, self._score_threshold)
            row |= self._scores(groups, ids, best, grouping)
            prediction = grouping.fine[ids]
        occupancy, contacts = None, np.zeros((0, 4), np.float32)
        label = None if groups is None or grouping is None else grouping.fine[groups]
        if mounting is not None:
            view = View(result.mask, result.confidence, mounting.camera, mounting.T_vehicle_camera)
            area = self._area.update([view])
            occupancy, contacts = area.occupancy, area.contacts
            row |= self._ground(occupancy, label, mounting)
        return Measured(row, picture, label, prediction, occupancy, contacts)

    def _scores(self, groups: np.ndarray, ids: np.ndarray, confidence: np.ndarray, grouping: Grouping) -> Row:
        """Agreement with a label, as `mfuser_ros.evaluation.dataset.evaluate` counts it."""
        classes = len(grouping.names)
        confusion, calibration, boundary = Confusion.empty(classes), Calibration.empty(), Boundary.empty(classes)
        confusion.add(groups, ids)
        boundary.add(groups, ids)
        seen = (groups != UNKNOWN) & (ids != UNKNOWN)
        calibration.add(confidence[seen].clip(0, 1), ids[seen] == groups[seen])
        free = list(grouping.with_role(self._segmenter.vocabulary, FREE_ROLE))
        counts = confusion.counts
        true_free = int(counts[np.ix_(free, free)].sum())
        agreement = [true_free, int(counts[:, free].sum()) - true_free, int(counts[free].sum()) - true_free]
        road = grouping.road(self._segmenter.vocabulary)
        return {
            **score_columns(confusion, calibration, boundary, road),
            "drivable_iou": iou_of(agreement),
            "drivable_pixels": agreement,
        }

    def _ground(self, occupancy: np.ndarray, label: np.ndarray | None, mounting: Mounting) -> Row:
        cell_m2 = GRID.resolution**2
        free = occupancy == FREE_CELL
        row: Row = {
            "drivable_m": drivable_distance(occupancy, resolution=GRID.resolution, x_min=GRID.x_min, y_min=GRID.y_min),
            "free_m2": float(free.sum() * cell_m2),
        }
        if label is None:
            return row
        size = (mounting.camera.width, mounting.camera.height)
        if label.shape != size[::-1]:
            label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        view = View(label, np.full_like(label, 255), mounting.camera, mounting.T_vehicle_camera)
        truth = self._area.update([view]).occupancy
        told = truth != UNKNOWN_CELL  # where the label says nothing, nothing can be wrong
        truly_free = truth == FREE_CELL
        agreement = [
            int((free & truly_free).sum()), int((free & told & ~truly_free).sum()), int((truly_free & ~free).sum())
        ]  # fmt: skip
        return row | {
            "drivable_cells": agreement,
            "drivable_iou_m": iou_of(agreement),
            "false_free_m2": agreement[1] * cell_m2,
            "missed_free_m2": agreement[2] * cell_m2,
        }


def best_group(probability: np.ndarray, grouping: Grouping, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The most probable group of each pixel.

    Args:
        probability: float32 (K, h, w) of the classes.
        grouping: which classes are one group.
        threshold: a less probable group is unknown.

    Returns:
        ids: uint8 (h, w), 255 unknown or a class of no group.
        confidence: float32 (h, w) its probability.
    """
    # the arithmetic of mfuser_ros.evaluation.dataset, so that both agree to the last digit
    coarse = torch.einsum("gk,bkhw->bghw", torch.from_numpy(grouping.membership), torch.from_numpy(probability)[None])
    best, ids = coarse.max(1)
    ids = torch.where((best < threshold) | (ids >= len(grouping.names)), UNKNOWN, ids).to(torch.uint8)
    return ids[0].numpy(), best[0].numpy()
