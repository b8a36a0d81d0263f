"""What goes into and comes out of modules while a network runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Record:
    """The last call of a module."""

    inputs: tuple[Any, ...]  # positional arguments: tensors, or what the module takes
    output: Any  # a tensor, or what the module gives


@contextmanager
def recorded(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Record]]:
    """Record the calls of modules by the names given; filled while the block runs."""
    seen: dict[str, Record] = {}
    with ExitStack() as stack:
        for name, module in modules.items():

            def record(_: nn.Module, inputs: tuple[Any, ...], output: Tensor, name: str = name) -> None:
                seen[name] = Record(inputs, output)

            stack.callback(module.register_forward_hook(record).remove)
        yield seen
