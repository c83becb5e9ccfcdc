"""What attacks with a generative model of signatures share: training, and two ways to compare."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import cos, pi
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.networks import AdamW
from fedmia.attacks.series import column_of
from fedmia.attacks.signatures import Signatures, signatures
from fedmia.errors import expect
from fedmia.knowledge import Shadows
from fedmia.records import Capability, Examples
from fedmia.signals import Signals

Float64 = NDArray[np.float64]

_BATCH = 256
_RATE = 3e-3
_FURTHER = 4
_CALIBRATIONS = ("clients", "shadow")


class Density(Protocol):
    """A generative model of signatures x (n, d) given what was known before, c (n, e)."""

    def loss(self, x: Tensor, c: Tensor, generator: torch.Generator) -> Tensor:
        """Return what training makes small, a scalar; its noise comes from the generator."""

    def log_density(self, x: Tensor, c: Tensor) -> Tensor:
        """Return ``log p(x | c)`` or a bound of it, (n,), with the same noise at every call."""

    def excess(self, x: Tensor, c: Tensor) -> Tensor:
        """Return how far x lies above what is typical given c, averaged over entries, (n,)."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return what is trained."""


@dataclass(frozen=True)
class Generative(Attack):
    """Compare the target's signature x of a record with generated, typical ones of non-members.

    ``p_out(x | c)`` is trained on the signatures of the auxiliary records under every client's
    updates, none of which held them. That ``p_out`` finds x untypical says nothing yet of
    membership: the update may as well fit the record worse than usual. Two ways give a direction:

    - ``calibration="clients"``: ``s = e_k − mean_{j≠k} e_j`` with the excess ``e_j`` of client j's
      signature of the same record over typical ones, along the direction in which all entries
      grow. It is positive where the record is fitted better, negative where it is fitted worse.
    - ``calibration="shadow"``: ``s = log p_in(x | c) − log p_out(x | c)``. ``p_in`` is ``p_out``
      trained further, for a quarter of the steps, on signatures of members of shadow federations
      under the clients that held them. Where the excess is negative, ``−|s|``: far from all that
      either model was trained on, a ratio says nothing.

    x and c are described in :mod:`fedmia.attacks.signatures`. One model serves all targets. The
    noise in a score is the same for every record, client and hypothesis: fresh noise would drown
    the comparison between clients.
    """

    calibration: str = "clients"
    blocks: int = 3
    width: int = 64
    steps: int = 400

    needs = frozenset({Capability.CLIENT_UPDATES, Capability.MANY_ROUNDS, Capability.AUXILIARY})
    cheap = False

    def __post_init__(self) -> None:
        expect(
            self.calibration in _CALIBRATIONS,
            "calibration",
            self.calibration,
            f"one of {', '.join(_CALIBRATIONS)}",
        )
        for name in ("blocks", "width", "steps"):
            value = getattr(self, name)
            expect(value >= 1, name, value, "at least 1")

    def requirements(self) -> frozenset[Capability]:
        """Return what the calibration needs as well."""
        clients = self.calibration == "clients"
        return self.needs | {Capability.MANY_CLIENTS if clients else Capability.SHADOWS}

    @abstractmethod
    def density(self, entries: int, known: int, generator: torch.Generator) -> Density:
        """Return an untrained model of x with ``entries`` entries given c with ``known``."""

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> Float64:
        """Return the calibrated excess or the log ratio, shape (n,)."""
        k = column_of(view, target)
        seen: NDArray[np.bool_] = np.asarray(view.signals.present.any(axis=0))
        if not seen[k]:
            raise NotApplicableError("needs a round in which the target took part")
        if self.calibration == "clients" and seen.sum() < 2:
            raise NotApplicableError("needs another client whose updates were seen")
        seed = int(knowledge.rng(type(self).__name__.lower()).integers(2**63))
        auxiliary = view.signals.of(knowledge.auxiliary)
        shadows = knowledge.shadows if self.calibration == "shadow" else None
        compared = _compare(self, view.signals, auxiliary, shadows, seed)
        row = int(seen[:k].sum())
        if self.calibration == "shadow":
            return np.asarray(compared[row])
        return np.asarray(compared[row] - np.delete(compared, row, axis=0).mean(axis=0))


@lru_cache(maxsize=2)
def _compare(
    attack: Generative, signals: Signals, auxiliary: Signals, shadows: Shadows | None, seed: int
) -> Float64:
    """Return the excess or, given shadows, the log ratio under each client seen: (clients, n)."""
    generator = torch.Generator().manual_seed(seed)
    columns = _seen(signals)
    out = _signatures(auxiliary, columns, attack.blocks)
    own = _signatures(signals, columns, attack.blocks).standardised(out)
    typical = out.standardised(out)
    model = attack.density(typical.x.shape[-1], typical.c.shape[-1], generator)
    _fit(model, typical.x, typical.c, attack.steps, generator)
    if shadows is None:
        return _each(model.excess, own.x, own.c)
    log_p_out = _each(model.log_density, own.x, own.c)
    x_in, c_in = _of_members(shadows, attack.blocks)
    excess = _each(model.excess, own.x, own.c)
    _fit(model, x_in, c_in, -(-attack.steps // _FURTHER), generator)
    ratio = _each(model.log_density, own.x, own.c) - log_p_out
    return np.where(excess < 0, -np.abs(ratio), ratio)


@lru_cache(maxsize=4)
def _signatures(signals: Signals, columns: tuple[int, ...], blocks: int) -> Signatures:
    """Return the signatures under some clients, which are the same for all generative models."""
    return signatures(signals, np.array(columns, dtype=np.int64), blocks)


def _seen(signals: Signals) -> tuple[int, ...]:
    return tuple(np.flatnonzero(signals.present.any(axis=0)).tolist())


def _of_members(shadows: Shadows, blocks: int) -> tuple[Float64, Float64]:
    """Return the standardised signatures of shadow members, (members, d) and (members, e)."""
    x, c = [], []
    for federation in shadows.transcripts():
        signals = federation.view.signals
        columns = _seen(signals)
        position = [federation.nodes.index(signals.nodes[k]) for k in columns]
        held = federation.owner == np.array(position)[:, None]
        raw = _signatures(signals, columns, blocks)
        standard = raw.standardised(raw, ~held)
        x.append(standard.x[held])
        c.append(standard.c[held])
    if sum(map(len, x)) == 0:
        raise NotApplicableError("needs a shadow federation that is watched round by round")
    return np.concatenate(x), np.concatenate(c)


def _fit(model: Density, x: Float64, c: Float64, steps: int, generator: torch.Generator) -> None:
    """Train by Adam with a rate that falls to zero along half a cosine."""
    X = torch.from_numpy(x.reshape(-1, x.shape[-1])).float()
    C = torch.from_numpy(c.reshape(-1, c.shape[-1])).float()
    optimizer = AdamW(model.parameters())
    for step in range(steps):
        rows = torch.randint(len(X), (_BATCH,), generator=generator)
        rate = _RATE * (1 + cos(pi * step / steps)) / 2
        optimizer.step(model.loss(X[rows], C[rows], generator), rate)


@torch.no_grad()
def _each(measure: Callable[[Tensor, Tensor], Tensor], x: Float64, c: Float64) -> Float64:
    """Return a measure of signatures (clients, n, d) given (clients, n, e) as (clients, n)."""
    rows = [
        measure(torch.from_numpy(a).float(), torch.from_numpy(b).float())
        for a, b in zip(x, c, strict=True)
    ]
    return torch.stack(rows).double().numpy()


def perceptron(sizes: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    """Return a network with SiLU between its layers, its weights drawn from the generator."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        linear = nn.Linear(before, after, device="meta").to_empty(device="cpu")
        nn.init.kaiming_uniform_(linear.weight, a=5**0.5, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])
