"""What a forward pass says of candidates: cross-entropy loss and logit gap, in float64."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def loss_and_gap(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses and logit gaps of labelled logits, both (n,) and float64.

    ``φ = z_y − logsumexp_{j≠y} z_j`` (Carlini et al. 2022, arXiv 2112.03570) and
    ``ℓ = −log softmax(z)_y = log(1 + e^{−φ})``: the second form keeps confident examples apart
    where ``1 − p_y`` is below the resolution of a float, which would tie them.

    Parameters
    ----------
    logits
        Shape (n, classes).
    y
        Labels, shape (n,).
    """
    z = logits.double()
    own = z.gather(1, y[:, None]).squeeze(1)
    others = z.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    gap = own - others
    return torch.logaddexp(torch.zeros_like(gap), -gap), gap


@torch.no_grad()
def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, chunk: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the losses and logit gaps of candidates under ``model`` as it stands, each (n,)."""
    parts = [
        loss_and_gap(model(x[i : i + chunk]), y[i : i + chunk]) for i in range(0, len(y), chunk)
    ]
    loss, gap = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return loss, gap
