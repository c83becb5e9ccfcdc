"""Reference models on disk, and what they say of records."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.func import functional_call

from fedmia.records import Examples
from fedmia.shadows.stacked import Stacked
from fedmia.signals.routes import chunk_size

_MEMBERS = "members"


class TrainedModels:
    """S trained models in a file; implements :class:`fedmia.knowledge.References`.

    Parameters
    ----------
    file
        Where :func:`save` put them.
    model
        The architecture.
    pool
        The N records that the training sets were drawn from.

    Raises
    ------
    SafetensorError, OSError, KeyError
        If the file is not there or damaged.
    """

    def __init__(self, file: Path, model: nn.Module, pool: Examples) -> None:
        self._file = file
        self._model = copy.deepcopy(model).eval()
        with safe_open(file, framework="np") as tensors:
            members = tensors.get_tensor(_MEMBERS).astype(np.bool_)
        # Equal records are one: who trained on either has seen both.
        number: dict[bytes, int] = {}
        place = [number.setdefault(key, len(number)) for key in _keys(pool)]
        self._number = number
        self._members = np.zeros((len(members), len(number) + 1), dtype=np.bool_)
        for model_index, record in np.argwhere(members):
            self._members[model_index, place[record]] = True
        self._logits: dict[str, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        """Return S."""
        return len(self._members)

    def held(self, records: Examples) -> NDArray[np.bool_]:
        """Return which model was trained on which record, (S, n); equal bytes are equal records."""
        unknown = len(self._number)
        return self._members[:, [self._number.get(key, unknown) for key in _keys(records)]]

    def logits(self, records: Examples) -> NDArray[np.float32]:
        """Return every model's logits, (S, n, classes), in evaluation mode; kept once computed."""
        key = hashlib.sha256(records.x.tobytes()).hexdigest()
        if key not in self._logits:
            self._logits[key] = self._evaluate(torch.from_numpy(np.array(records.x)))
            self._logits[key].setflags(write=False)
        return self._logits[key]

    @torch.no_grad()
    def _evaluate(self, x: torch.Tensor) -> NDArray[np.float32]:
        rows = chunk_size(self._model, x)
        parts = [x[start : start + rows] for start in range(0, len(x), rows)]
        models = []
        with safe_open(self._file, framework="pt") as tensors:
            slices = {k: tensors.get_slice(k) for k in self._model.state_dict()}
            for i in range(len(self)):
                weights = {name: values[i] for name, values in slices.items()}
                logits = [functional_call(self._model, weights, (part,)) for part in parts]
                models.append(torch.cat(logits).float().numpy())
        return np.stack(models)


def save(file: Path, models: Stacked, members: NDArray[np.bool_]) -> None:
    """Write models and who was trained on what, (S, N); the file is whole or not there at all."""
    partial = file.with_name(f"{file.name}.partial")
    tensors = {name: value.contiguous() for name, value in models.items()}
    save_file(tensors | {_MEMBERS: torch.from_numpy(members.astype(np.uint8))}, partial)
    partial.replace(file)


def load(file: Path, model: nn.Module, pool: Examples) -> TrainedModels | None:
    """Return what a file holds, nothing where it is missing or damaged."""
    try:
        return TrainedModels(file, model, pool)
    except (SafetensorError, OSError, KeyError):
        return None


def _keys(records: Examples) -> list[bytes]:
    return [x.tobytes() + y.tobytes() for x, y in zip(records.x, records.y, strict=True)]
