"""Figures of a benchmark."""

from mfuser_ros.evaluation.speed import percentiles


def test_percentiles_are_linear_between_samples():
    # 101 samples 0, 1, ..., 100: the p-th percentile is p itself
    assert percentiles([float(ms) for ms in range(101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "min": 0.0}
    assert percentiles([2.0, 4.0]) == {"p50": 3.0, "p95": 3.9, "p99": 3.98, "min": 2.0}
