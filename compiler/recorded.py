"""What is known of the operators of a forward."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.fx import Node

from moec.compiler.source_names import Frame


@dataclass(frozen=True, slots=True)
class Made:
    """Of a tensor, all that a trace needs."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Given:
    """What a placeholder stands for; `target` is the module's own name for it, or "" if it has none."""

    kind: Literal["weight", "buffer", "input", "constant"]  # a frozen weight is a buffer
    target: str
    tensor: object = None  # of a constant


@dataclass(frozen=True, slots=True)
class Recorded:
    """The operators of one forward, in order, as nodes of torch.fx."""

    nodes: tuple[Node, ...]
    given: Mapping[str, Given]  # placeholder -> what it stands for


def note(node: Node, value: object, path: str, frames: tuple[Frame, ...]) -> None:
    """Say of a node what it makes, in which module, and the lines of forwards that ran, outermost first."""
    node.meta = {"made": _made(value), "path": path, "frames": frames}


def made(node: Node) -> Made:
    """What a node of one result makes."""
    found = node.meta["made"]
    assert isinstance(found, Made), f"{node} makes several"
    return found


def several(node: Node) -> tuple[Made, ...] | None:
    """What a node of several results makes; None for one of a single result."""
    found = node.meta["made"]
    return found if isinstance(found, tuple) else None


def path_of(node: Node) -> str:
    """The path of the module that runs the operator, "" for the one that is recorded."""
    return node.meta["path"]


def frames_at(node: Node) -> tuple[Frame, ...]:
    return node.meta["frames"]


def schema_of(node: Node) -> torch.FunctionSchema | None:
    """What torch says of an operator; None of a placeholder, an output or a getitem."""
    return getattr(node.target, "_schema", None)


def writes(node: Node) -> bool:
    """Does it change a tensor that it is given?"""
    schema = schema_of(node)
    return schema is not None and schema.is_mutable


def place_of(node: Node) -> list[str]:
    """The line of the model that made a node, or that first reads it; empty if none is known."""
    for at in (node, *node.users, *(later for user in node.users for later in user.users)):
        if frames_at(at):
            return [frames_at(at)[-1].shown]
    return []


def _made(value: object) -> object:
    if isinstance(value, Tensor):
        return Made(tuple(value.shape), value.dtype)
    return tuple(_made(x) for x in value if isinstance(x, Tensor)) if isinstance(value, tuple | list) else None
