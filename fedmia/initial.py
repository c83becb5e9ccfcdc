"""The model that a federation starts from."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import nn

from fedmia.config import build
from fedmia.datasets.base import Dataset
from fedmia.errors import ConfigError
from fedmia.seeding import torch_seed


def build_model(config: DictConfig, dataset: Dataset) -> nn.Module:
    """Return the initial model, checked against the data.

    A plug-in gives a module, or something that makes one of (input_shape, num_classes).

    Raises
    ------
    ConfigError
        If it cannot take a batch of the records or does not return a logit a class.
    """
    torch.manual_seed(torch_seed(config.seed, "model"))
    made: Any = build(config, "model")
    if not isinstance(made, nn.Module):
        made = made(dataset.input_shape, dataset.num_classes)
    name = config.model._target_.rpartition(".")[2]
    wanted = (2, dataset.num_classes)
    batch: NDArray[np.float32] = dataset.x[:2]
    try:
        with torch.no_grad():
            shape = tuple(made.eval()(torch.tensor(batch)).shape)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"model={name}: expected to take input of shape {dataset.input_shape} ({reason})"
        ) from error
    if shape != wanted:
        raise ConfigError(
            f"model={name}: expected {dataset.num_classes} logits a record, "
            f"got output of shape {shape} for 2 records"
        )
    if not any(p.requires_grad for p in made.parameters()):
        raise ConfigError(f"model={name}: expected at least one trainable parameter")
    module: nn.Module = made
    return module
