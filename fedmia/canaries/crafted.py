"""Canaries whose gradients are large and nearly orthogonal to everybody else's.

S. Maddock, A. Sablayrolles, P. Stock, CANIFE: Crafting Canaries for Empirical Privacy Measurement
in Federated Learning, ICLR 2023 (arXiv 2210.02912), Algorithm 2. Their loss for a canary with
gradient g is ``Σ_i ⟨u_i, g⟩² + max(C − ‖g‖, 0)²`` over updates u_i of held-out data. Here u_i are
the directions of the gradients of held-out records *and of the other canaries*, all at the initial
model, and the first term is taken in units of ‖g‖:

    mean_i cos²(u_i, g) + max(1 − ‖g‖/C, 0)²
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from fedmia.canaries.base import CanaryRecords, other_labels
from fedmia.errors import expect
from fedmia.records import Examples
from fedmia.training import torch_threads

_POOL = 100  # held-out records whose gradients canaries avoid, as in the paper
_LARGE = 2.0  # C, in units of the largest gradient among them
_ROOM = 2**24  # floats of gradients that are differentiated at once


@dataclass(frozen=True, kw_only=True)
class Crafted(CanaryRecords):
    """Give each record another label, and features found by Adam within the data's range.

    Parameters
    ----------
    steps
        Of Adam, at least 1.
    lr
        Of Adam, in units of each feature's range, more than 0.
    """

    steps: int = 50
    lr: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.steps >= 1, "steps", self.steps, "at least 1")
        expect(0 < self.lr < np.inf, "lr", self.lr, "more than 0 and finite")

    def plant(
        self,
        records: Examples,
        others: Examples,
        model: nn.Module,
        num_classes: int,
        rng: np.random.Generator,
    ) -> Examples:
        """Return crafted records; the same on any number of threads."""
        labels = other_labels(records.y, num_classes, rng)
        pool = others[rng.permutation(len(others))[:_POOL]]
        known = np.concatenate([records.x, pool.x])
        low, high = (torch.from_numpy(bound(known, axis=0)) for bound in (np.min, np.max))
        with torch_threads(1):
            crafted = self._crafted(
                _Gradients(model), pool, torch.from_numpy(records.x), labels, low, high
            )
        return Examples(crafted.numpy(), labels)

    def _crafted(
        self,
        gradients: "_Gradients",
        pool: Examples,
        x: Tensor,
        labels: np.ndarray[tuple[int], np.dtype[np.int64]],
        low: Tensor,
        high: Tensor,
    ) -> Tensor:
        y, width = torch.from_numpy(labels), high - low
        avoided = gradients.of(torch.from_numpy(pool.x), torch.from_numpy(pool.y))
        norms = [avoided.norm(dim=1), gradients.of(x, y).norm(dim=1)]
        large = _LARGE * float(torch.cat(norms).max())
        avoided = _directions(avoided)
        made = []
        rows = max(1, _ROOM // gradients.size)
        for start in range(0, len(y), rows):
            part = self._descend(gradients, avoided, x[start : start + rows],
                                 y[start : start + rows], low, width, large)  # fmt: skip
            made.append(part)
            if start + rows < len(y):
                found = gradients.of(part, y[start : start + rows])
                avoided = torch.cat([avoided, _directions(found)])
        return torch.cat(made)

    def _descend(
        self,
        gradients: "_Gradients",
        avoided: Tensor,
        x: Tensor,
        y: Tensor,
        low: Tensor,
        width: Tensor,
        large: float,
    ) -> Tensor:
        """Return the features of some canaries, by steps in units of each feature's range."""
        safe = torch.where(width > 0, width, 1.0)
        place = ((x - low) / safe).clone().requires_grad_()
        optimiser = torch.optim.Adam([place], lr=self.lr)
        for _ in range(self.steps):
            optimiser.zero_grad()
            g = gradients.of(low + place * width, y)
            unit = _directions(g)
            among = (unit @ unit.T).square().sum(dim=1) - 1
            crossed = (unit @ avoided.T).square().sum(dim=1)
            mean = (among + crossed) / (len(avoided) + len(y) - 1)
            loss = mean + (1 - g.norm(dim=1) / large).clamp(min=0).square()
            loss.sum().backward()
            optimiser.step()
            with torch.no_grad():
                place.clamp_(0, 1)
        return (low + place.detach() * width).contiguous()


class _Gradients:
    """The gradient of each record's loss at one model, in evaluation mode."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model.eval()
        self._trained = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        self._fixed = {
            n: v.detach() for n, v in model.state_dict().items() if n not in self._trained
        }
        self.size = sum(p.numel() for p in self._trained.values())

    def of(self, x: Tensor, y: Tensor) -> Tensor:
        """Return gradients of shape (n, d), differentiable in x where x is."""

        def loss(parameters: dict[str, Tensor], record: Tensor, label: Tensor) -> Tensor:
            made = functional_call(self._model, {**self._fixed, **parameters}, (record[None],))
            return cross_entropy(made, label[None])

        by_name = vmap(grad(loss), in_dims=(None, 0, 0))(self._trained, x, y)
        return torch.cat([g.reshape(len(y), -1) for g in by_name.values()], dim=1)


def _directions(gradients: Tensor) -> Tensor:
    return nn.functional.normalize(gradients, dim=1)
