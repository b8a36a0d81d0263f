"""Selective scan: the recurrence of a Mamba block, one signature, several backends."""

from mfuser_ros.network.scan.selective_scan import Backend, chosen, selective_scan

__all__ = ["Backend", "chosen", "selective_scan"]
