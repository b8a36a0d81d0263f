"""Memory of the device that the network runs on."""

from __future__ import annotations

import sys

import psutil

from mfuser_ros.node.lines import one_line


def memory(device: str) -> dict[str, str]:
    """What diagnostics tell of the memory: of the GPU, or of this process where the network runs on the CPU.

    Args:
        device: torch's name, such as `cpu` or `cuda:0`.
    """
    if device.startswith("cuda") and (torch := sys.modules.get("torch")) is not None:
        try:
            free, total = torch.cuda.mem_get_info(device)
            used, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
        except RuntimeError as error:  # after a fault of the device every call fails until the process ends
            return {"device_memory_mb": f"n/a ({one_line(error)})"}
        return {
            "device_memory_mb": _megabytes(used),
            "device_memory_peak_mb": _megabytes(peak),
            "device_memory_free_mb": _megabytes(free),
            "device_memory_total_mb": _megabytes(total),
        }
    return {
        "device_memory_mb": _megabytes(psutil.Process().memory_info().rss),
        "device_memory_free_mb": _megabytes(psutil.virtual_memory().available),
        "device_memory_total_mb": _megabytes(psutil.virtual_memory().total),
    }


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f}"
