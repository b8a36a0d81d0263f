"""Errors as one line for logs and diagnostics."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """Text of an error on one line; with its type where the text says little."""
    text = " ".join(str(error).split())
    return text if text and type(error).__module__.startswith("mfuser_ros") else f"{type(error).__name__}: {text}"
