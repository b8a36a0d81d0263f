"""From class probabilities on the network's grid to the best class of each pixel of the picture."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def probabilities(scores: Tensor, temperature: float) -> Tensor:
    """Probability of each class: ``s_c^(1/T) / sum_k s_k^(1/T)``.

    Args:
        scores: (batch, K, h, w) assembled scores, not negative.
        temperature: T; above 1 the model becomes less sure of itself.
    """
    if temperature != 1:
        scores = scores.clamp(min=1e-30) ** (1 / temperature)
    return scores / scores.sum(1, keepdim=True).clamp(min=1e-30)


def best_class(
    probability: Tensor, height: int, width: int, *, least_sum: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge the probabilities of one picture and take the best class of each pixel.

    Args:
        probability: (K, h, w), sums to `least_sum` or more over the classes.
        height: of the picture, pixels.
        width: of the picture, pixels.
        least_sum: over the classes at any place; less than 1 if the vocabulary leaves out classes of the model.

    Returns:
        labels: uint8 (height, width) best class.
        confidence: float32 (height, width) its probability.
    """
    if probability.is_cuda:
        large = F.interpolate(probability[None].float(), (height, width), mode="bilinear", align_corners=False)[0]
        best, labels = large.max(0)
        return labels.to(torch.uint8).cpu().numpy(), best.cpu().numpy()
    return _best_class_on_cpu(probability.float().numpy(), height, width, least_sum)


def _best_class_on_cpu(
    probability: np.ndarray, height: int, width: int, least_sum: float
) -> tuple[np.ndarray, np.ndarray]:
    """Class by class with a running maximum: a third of the time of enlarging all of them at once.

    Bilinear enlargement keeps the sum over the classes at S or more, if it is so on the small grid. The best class then
    has at least S / K everywhere, and one that never reaches S / K can be left out without changing the result.
    """
    peaks = probability.max((1, 2))
    candidates = np.flatnonzero(peaks >= min(least_sum / len(probability), float(peaks.max())))
    best = cv2.resize(probability[candidates[0]], (width, height), interpolation=cv2.INTER_LINEAR)
    labels = np.full((height, width), candidates[0], np.uint8)
    large = np.empty_like(best)
    for candidate in candidates[1:]:
        cv2.resize(probability[candidate], (width, height), dst=large, interpolation=cv2.INTER_LINEAR)
        better = cv2.compare(large, best, cv2.CMP_GT)  # 255 where true
        cv2.max(large, best, dst=best)
        cv2.bitwise_or(
            cv2.bitwise_and(labels, cv2.bitwise_not(better)), cv2.bitwise_and(better, int(candidate)), dst=labels
        )
    return labels, best
