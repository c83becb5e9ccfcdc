"""White-box attack: an attack network on gradients, activations, logits and loss of a record.

M. Nasr, R. Shokri, A. Houmansadr, "Comprehensive Privacy Analysis of Deep Learning: Passive and
Active White-box Inference Attacks against Centralized and Federated Learning", IEEE S&P 2019,
arXiv 1812.00910.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedmia.attacks.base import Attack, Knowledge, NotApplicableError, View
from fedmia.attacks.networks import by_content, lessons
from fedmia.attacks.series import column_of
from fedmia.attacks.spectral import two_clusters
from fedmia.attacks.white_box import Features, Step, join, watch
from fedmia.attacks.white_box_network import EMBEDDING, classifier, embedding
from fedmia.errors import expect
from fedmia.knowledge import Shadows
from fedmia.records import Capability, Examples
from fedmia.seeding import generator

_TAUGHT = 600  # examples that the unsupervised network learns from, of at most so many targets:
_TARGETS = 5
_CLUSTERED = 300  # records that the spectral clustering is computed on


@dataclass(frozen=True)
class Nasr(Attack):
    """Score ``f(∇_W ℓ, h, z, ℓ, e_y)``, the log-odds that an attack network gives (§III).

    Each of several observed models contributes the record's gradient of the last layers, their
    inputs, the logits and the loss. Every component has a network of its own: a convolution with
    kernels as wide as a layer's input on the gradient matrix, dense layers on the others. An
    encoder joins them. This is the passive attack.

    Without supervision, the encoder is that of an auto-encoder which reproduces loss, correctness,
    probability of the label, entropy and gradient norm. Its embedding is cut in two by spectral
    clustering; members are the cluster with the smaller median loss, which is what training makes
    small. The paper takes that with the smaller gradients, but a gradient ``(p − e_y) hᵀ`` may
    well grow along ``h`` as long as a record is not fitted. The score is continuous: how much
    nearer a record lies to the centre of the members' cluster than to the other one. One
    auto-encoder serves all targets; each has clusters of its own.

    Parameters
    ----------
    training
        ``known``: on members and non-members that the adversary knows; ``shadow``: on shadow
        federations, one network for all targets; ``none``: unsupervised.
    model
        ``local``: the target's models ``w_k^t``, as the server sees them, the paper's global
        attacker; ``global``: the models ``w^t`` sent out, the paper's local attacker.
    rounds
        How many models are looked at, the last ones; if there are fewer, the first is repeated.
    layers
        How many dense or convolutional layers, counted from the end.
    epochs
        Over the training records.
    learning_rate
        Of AdamW.
    """

    training: str = "shadow"
    model: str = "local"
    rounds: int = 5
    layers: int = 1
    epochs: int = 30
    learning_rate: float = 1e-3

    needs = frozenset({Capability.CLIENT_UPDATES})
    reference = "nasr2019comprehensive"
    cheap = False

    def __post_init__(self) -> None:
        kinds = ("known", "shadow", "none")
        expect(self.training in kinds, "training", self.training, "known, shadow or none")
        expect(self.model in ("local", "global"), "model", self.model, "local or global")
        expect(self.rounds >= 1, "rounds", self.rounds, "at least 1")
        expect(self.layers >= 1, "layers", self.layers, "at least 1")
        expect(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        expect(self.learning_rate > 0, "learning_rate", self.learning_rate, "more than 0")

    def requirements(self) -> frozenset[Capability]:
        """Return what the chosen models need, and what the network learns from."""
        seen = Capability.CLIENT_UPDATES if self.model == "local" else Capability.GLOBAL_MODEL
        taught = {
            "known": {Capability.KNOWN_MEMBERS},
            "shadow": {Capability.SHADOWS},
            "none": set[Capability](),
        }
        return frozenset({seen}) | taught[self.training]

    def score(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return the log-odds of membership or the difference of distances, shape (n,)."""
        if self.training == "none":
            return self._by_cluster(view, target, candidates, knowledge)
        if self.training == "known":
            network = self._taught_by_known(view, target, candidates, knowledge)
        elif knowledge.shadows is not None:
            network = _taught_by_shadows(self, knowledge.shadows, knowledge.seed)
        else:
            raise NotApplicableError("needs shadow federations")
        return _outputs(self, network, view, self.asked(target))

    def asked(self, target: int | None) -> int | None:
        """Return whose models are looked at; those sent out are the same for every target."""
        return target if self.model == "local" else None

    def watch(self, view: View, target: int | None, records: Examples) -> Features:
        """Return the records' features under the last models that were seen."""
        steps: list[Step]
        if self.model == "local":
            k = column_of(view, target)
            steps = [(int(t), k) for t in np.flatnonzero(view.signals.present[:, k])]
            if not steps:
                raise NotApplicableError("needs a round in which the target took part")
        else:
            steps = [*((t, None) for t in range(len(view.signals.rounds_global) - 1)), (-1, None)]
        last = steps[-self.rounds :]
        padded = [last[0]] * (self.rounds - len(last)) + last
        return watch(view.signals, records, padded, self.layers)

    def _taught_by_known(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> nn.Module:
        rng = knowledge.rng("nasr")
        known = knowledge.known_members, knowledge.known_nonmembers
        sides = [candidates[rows[by_content(candidates[rows])]] for rows in known]
        size = min(map(len, sides))
        if size == 0:
            raise NotApplicableError("needs known members and non-members of the target")
        chosen = [side[rng.choice(len(side), size, replace=False)] for side in sides]
        features = join([self.watch(view, target, side) for side in chosen])
        labels = torch.tensor([1.0] * size + [0.0] * size)
        return classifier(features, labels, rng, self.epochs, self.learning_rate)

    def _by_cluster(
        self, view: View, target: int | None, candidates: Examples, knowledge: Knowledge
    ) -> NDArray[np.float64]:
        """Return how much nearer a record is to the cluster of small losses, (n,)."""
        network = _untaught(self, view, knowledge.seed)
        seen = _outputs(self, network, view, self.asked(target))
        embedded, losses = seen[:, :-1], seen[:, -1]
        drawn = knowledge.rng("nasr clusters").permutation(len(candidates))[:_CLUSTERED]
        rows = by_content(candidates)[drawn]
        inside = two_clusters(embedded[rows], 1 / EMBEDDING)
        if not inside.any():
            raise NotApplicableError("needs records that fall into two clusters")
        if np.median(losses[rows][inside]) > np.median(losses[rows][~inside]):
            inside = ~inside
        near, far = (embedded[rows][cluster].mean(axis=0) for cluster in (inside, ~inside))
        return np.asarray(
            np.linalg.norm(embedded - far, axis=1) - np.linalg.norm(embedded - near, axis=1)
        )


@lru_cache(maxsize=2)
def _outputs(
    attack: Nasr, network: nn.Module, view: View, target: int | None
) -> NDArray[np.float64]:
    """Return a network's outputs for the candidates, (n, ...), a chunk of them at a time."""
    records = view.signals.candidates
    size = 2048 if attack.layers == 1 else 256  # further back may lie large convolutions
    chunks = [records[i : i + size] for i in range(0, len(records), size)]
    with torch.no_grad():
        outputs = [network(attack.watch(view, target, chunk)) for chunk in chunks]
    return np.asarray(torch.cat(outputs), dtype=np.float64)


@lru_cache(maxsize=2)
def _untaught(attack: Nasr, view: View, seed: int) -> nn.Module:
    """Return the embedding network, the same for all targets."""
    rng, signals = generator(seed, "nasr"), view.signals
    targets: list[int | None] = [None]
    if attack.model == "local":
        seen = np.flatnonzero(signals.present.any(axis=0))
        if not len(seen):
            raise NotApplicableError("needs a round in which a client took part")
        targets = [signals.nodes[k] for k in np.sort(rng.permutation(seen)[:_TARGETS])]
    order, size = by_content(signals.candidates), -(-_TAUGHT // len(targets))
    rows = [order[rng.permutation(len(order))[:size]] for _ in targets]
    parts = [
        attack.watch(view, target, signals.candidates[own])
        for target, own in zip(targets, rows, strict=True)
    ]
    return embedding(join(parts), rng, attack.epochs, attack.learning_rate)


@lru_cache(maxsize=2)
def _taught_by_shadows(attack: Nasr, shadows: Shadows, seed: int) -> nn.Module:
    """Return the attack network from features to log-odds (n,), the same for all targets."""
    rng = generator(seed, "nasr")
    taught = lessons(shadows, attack.model == "local", rng)
    features = join(
        [attack.watch(x.federation.view, x.node, x.federation.candidates[x.rows]) for x in taught]
    )
    labels = torch.from_numpy(np.concatenate([x.labels for x in taught]))
    return classifier(features, labels, rng, attack.epochs, attack.learning_rate)
