"""What a forward pass says of candidates: loss, logit gap and two entropies, in float64."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Float64 = NDArray[np.float64]


def loss_and_gap(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses and logit gaps of labelled logits, both (n,) and float64.

    ``φ = z_y − logsumexp_{j≠y} z_j`` (Carlini et al. 2022, arXiv 2112.03570) and
    ``ℓ = −log softmax(z)_y = log(1 + e^{−φ})``: the second form keeps confident examples apart
    where ``1 − p_y`` is below the resolution of a float, which would tie them. Finite logits have
    finite losses, however wrong: an infinite loss means that the network itself overflowed.

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


def entropies(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the entropy and the modified entropy of labelled logits, both (n,) and float64.

    ``H(p) = −Σ_i p_i log p_i`` and, of L. Song and P. Mittal (USENIX Security 2021, arXiv
    2003.10595), ``Mentr(p, y) = −(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i)``, which is small
    for a right and confident answer and large for a wrong and confident one. Their code clips
    probabilities at 1e-30; here logarithms are taken before rounding, and nothing is clipped.

    Parameters
    ----------
    logits
        Shape (n, classes).
    y
        Labels, shape (n,).
    """
    z = logits.double()
    log_p = z.log_softmax(1)
    log_rest = torch.log1p(-log_p.exp())
    # Only the likeliest class can come so near to 1 that p and 1 - p lose their digits.
    largest, top = z.max(1, keepdim=True)
    gap = largest - z.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    zero = torch.zeros_like(gap)
    log_p = log_p.scatter(1, top, -torch.logaddexp(zero, -gap))
    log_rest = log_rest.scatter(1, top, -torch.logaddexp(zero, gap))
    p, labels = log_p.exp(), y[:, None]
    own = log_rest.gather(1, labels).exp() * log_p.gather(1, labels)
    others = (p * log_rest).scatter(1, labels, 0.0).sum(1)
    return -(p * log_p).sum(1), -own.squeeze(1) - others


@torch.no_grad()
def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits of records under ``model`` as it stands, (n, classes)."""
    logits: Tensor = model(x)
    return logits


def evaluate(model: nn.Module, x: Tensor, y: Tensor, chunk: int) -> tuple[Float64, Float64]:
    """Return the losses and logit gaps of candidates under ``model`` as it stands, each (n,)."""
    parts = [
        loss_and_gap(logits_of(model, x[i : i + chunk]), y[i : i + chunk])
        for i in range(0, len(y), chunk)
    ]
    loss, gap = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return loss, gap
