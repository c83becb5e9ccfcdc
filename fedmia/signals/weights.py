"""Between recorded arrays and a model: its weights, and the directions it was moved in."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedmia.errors import expect
from fedmia.records import Params, Update
from fedmia.signals.gradients import trainable


def load(model: nn.Module, params: Params, update: Update | None = None) -> None:
    """Set a model to ``w``, or to ``w + Δ`` of an update; what Δ does not name did not move.

    Raises
    ------
    ConfigError
        If ``params`` are not those of the model's architecture.
    """
    delta = update.delta if update else {}
    state = model.state_dict()
    mismatch = _mismatch(params, state)
    expect(not mismatch, "model", type(model).__name__, mismatch)
    with torch.no_grad(), np.errstate(over="ignore", invalid="ignore"):
        for name, value in params.items():
            moved = value + delta[name] if name in delta else value
            state[name].copy_(torch.from_numpy(np.array(moved)))


def unit_directions(
    model: nn.Module, moves: Sequence[Params]
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return the unit vectors along ``u = −Δ``, the lengths of K moves Δ and of their parts.

    The unit vectors come by trainable parameter, (K, *its shape); a move of length 0 has
    direction 0. Lengths (K,) and those of the P parameters' parts (K, P) are float64.
    """
    stacked = {
        name: torch.from_numpy(
            np.array([_descent(d, name, parameter) for d in moves], dtype=np.float32).reshape(
                len(moves), *parameter.shape
            )
        )
        for name, parameter in trainable(model).items()
    }
    squares = torch.stack([u.double().flatten(1).square().sum(1) for u in stacked.values()], 1)
    lengths = squares.sum(1).sqrt()
    scale = torch.where(lengths == 0, 1, lengths)
    for u in stacked.values():
        u /= scale.view(-1, *[1] * (u.ndim - 1))
    return stacked, lengths, squares.sqrt()


def _descent(delta: Params, name: str, parameter: Tensor) -> Any:
    return -delta[name] if name in delta else np.zeros(parameter.shape)


def _mismatch(params: Params, state: Mapping[str, Any]) -> str:
    theirs, ours = ({k: tuple(v.shape) for k, v in p.items()} for p in (params, state))
    for name in [*theirs, *ours]:
        if theirs.get(name) != ours.get(name):
            return (
                f"the transcript's architecture, where {name} is "
                f"{theirs.get(name, 'absent')} and not {ours.get(name, 'absent')}"
            )
    return ""
