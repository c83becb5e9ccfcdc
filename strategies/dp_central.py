"""DP-FedAvg: differential privacy for whole clients, by noise on the sum of clipped updates.

H. B. McMahan, D. Ramage, K. Talwar, L. Zhang, "Learning Differentially Private Recurrent Language
Models", ICLR 2018 (arXiv 1710.06963); the clip may follow a quantile of the norms: G. Andrew,
O. Thakkar, H. B. McMahan, S. Ramaswamy, "Differentially Private Learning with Adaptive Clipping",
NeurIPS 2021 (arXiv 1905.03871).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.errors import expect
from fedmia.privacy.accounting import Account, Sampling, gaussian_release
from fedmia.privacy.budget import Budget
from fedmia.privacy.claim import Claim, Setting
from fedmia.privacy.cost import Neighbours
from fedmia.privacy.lattice import noised
from fedmia.privacy.randomness import gaussian_source, uniform_source
from strategies.central import Central, examples, metrics_of

CLIPPINGS = ("flat", "per_layer")
WEIGHTINGS = ("equal", "capped")
SAMPLINGS = ("poisson", "fixed", "all")
_CLIP = "dp-clip"


@dataclass(frozen=True)
class _Rounds:
    """Rounds of one kind; called with a noise multiplier, it gives their account."""

    sampling: Sampling
    neighbours: Neighbours
    delta: float

    def __call__(self, noise_multiplier: float) -> Account:
        return Account(
            gaussian_release(noise_multiplier, self.sampling), self.neighbours, self.delta
        )


class DpCentral(Central):
    """Clip each client's update, sum, and add N(0, (zC)²) to every coordinate of the sum.

    The wrapped strategy gets w + (Σ_k w_k · clip(Δ_k, C) + noise) / (q·N), of N clients each drawn
    with probability q, or qN of them, and w_k = 1 or min(n_k / weight_cap, 1).

    With ``adaptive``, C ← C·exp(−clip_lr·(b̃ − quantile)) after each round, where b̃ is the noisy
    share of updates with ‖Δ_k‖ ≤ C. Its bits, centred to ±½, have noise of standard deviation σ_b,
    and the sum has noise of z_Δ·C, z_Δ = (z⁻² − (2σ_b)⁻²)^(−½): both together cost what z does.
    ``clips`` has the clip of each round, ``shares`` b̃; ``aim`` is the quantile and b̃'s σ.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates, with ``fraction_train`` 1.
    clip
        C, bound of the L2 norm of a client's update; the first one with ``adaptive``.
    clipping
        ``flat``; or ``per_layer``, where each of L arrays is clipped to C/√L.
    weighting, weight_cap
        ``equal``; or ``capped``, by the number of examples up to ``weight_cap``.
    noise_multiplier, epsilon, delta
        See :class:`fedmia.privacy.budget.Budget`.
    neighbours
        ``add_remove`` (one client's update more or less) or ``replace_one``.
    sampling, rate
        ``poisson``: each client with probability ``rate``; ``fixed``: so large a share of them,
        drawn without replacement; ``all``.
    rounds, clients, clip_by, secure_noise, seed
        See :class:`strategies.central.Central`.
    adaptive, quantile, clip_lr
        Whether the clip follows a quantile of the norms, which, and how fast.
    bit_noise
        σ_b; ``None`` takes a twentieth of the expected cohort.
    """

    def __init__(
        self,
        inner: Strategy,
        clip: float,
        rounds: int,
        clients: int,
        clipping: str = "flat",
        weighting: str = "equal",
        weight_cap: int | None = None,
        noise_multiplier: float | None = None,
        epsilon: float | None = None,
        delta: float = 1e-5,
        neighbours: str = "add_remove",
        sampling: str = "all",
        rate: float = 1.0,
        clip_by: str = "server",
        adaptive: bool = False,
        quantile: float = 0.5,
        clip_lr: float = 0.2,
        bit_noise: float | None = None,
        secure_noise: bool = False,
        seed: int = 0,
    ) -> None:
        expect(clipping in CLIPPINGS, "clipping", clipping, f"one of {', '.join(CLIPPINGS)}")
        expect(weighting in WEIGHTINGS, "weighting", weighting, f"one of {', '.join(WEIGHTINGS)}")
        _check_weights(weighting, weight_cap, clip_by)
        relations = [str(relation) for relation in Neighbours]
        expect(neighbours in relations, "neighbours", neighbours, f"one of {', '.join(relations)}")
        drawn = _sampling(sampling, rate, clients, neighbours)
        budget = Budget(noise_multiplier, epsilon, delta)
        self.clipping, self.weighting, self.weight_cap = clipping, weighting, weight_cap
        self.sampling, self.rate, self.neighbours = drawn, rate, Neighbours(neighbours)
        account_of = _Rounds(drawn, self.neighbours, delta)
        super().__init__(
            inner,
            clip,
            budget,
            account_of,
            rounds,
            clients,
            clip_by,
            secure_noise,
            seed,
            per_layer=clipping == "per_layer",
        )
        self.clips: list[tuple[int, float]] = []
        self.shares: list[tuple[int, float]] = []
        self.aim: tuple[float, float] | None = None
        self._adapting: _Adaptive | None = None
        allowed = "null with adaptive=false"
        expect(adaptive or bit_noise is None, "bit_noise", bit_noise, allowed)
        if adaptive:
            expect(clipping == "flat", "clipping", clipping, "flat with adaptive=true")
            allowed = "server with adaptive=true, which counts the updates within the clip"
            expect(clip_by == "server", "clip_by", clip_by, allowed)
            self._adapting = _Adaptive(
                quantile, clip_lr, bit_noise, self.noise_multiplier, self.cohort
            )
            self.aim = quantile, self._adapting.bit_noise / self.cohort

    @property
    def cohort(self) -> float:
        """By what the sum is divided: the clients expected in a round, whoever answers."""
        drawn = self.sampling
        return float(drawn.sample) if drawn.kind == "fixed" else self.rate * self.clients

    @property
    def asks(self) -> tuple[str, float, int]:
        """Setting and value that decide how many clients are asked in a round, and this number."""
        return "rate", self.rate, int(self.cohort)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What ε assumes of who takes part, a line each."""
        how = {
            "poisson": f"each client takes part with probability {self.rate:g}, independently",
            "fixed": f"{self.sampling.sample} of {self.clients} clients take part, drawn without "
            "replacement",
            "all": "all clients take part in every round",
        }[self.sampling.kind]
        hidden = ", and who does is not told" if self.sampling.kind != "all" else ""
        return (how + hidden,)

    def claims(self, setting: Setting) -> list[Claim]:
        """Return what is promised to each client, with no ε where who is drawn shows.

        A participant knows its own draws. With independent coins they tell nothing of others; of
        samples of fixed size, one that it is not in leaves more places to the others.
        """
        claims = super().claims(setting)
        if self.sampling.kind == "fixed" and self.sampling.fraction < 1:
            reason = (
                "nothing is promised against participants: who knows its own draws knows that the "
                "others are drawn more often where it is not"
            )
            return [
                replace(
                    claim,
                    holds_against=tuple(v for v in claim.holds_against if v != "participant"),
                    reasons=(*claim.reasons, reason),
                )
                for claim in claims
            ]
        if not setting.hidden or self.sampling.kind != "poisson" or self.rate == 1:
            return claims
        reason = (
            f"no ε: under {setting.hidden} a round with too few clients is abandoned, which tells "
            "how many were drawn; sampling=fixed draws always as many"
        )
        return [replace(claim, account=None, reasons=(reason,)) for claim in claims]

    def participants(self, server_round: int) -> NDArray[np.bool_]:
        """Return who takes part, by rank of the node id in the first round, shape (clients,)."""
        if self.sampling.kind == "all":
            return np.ones(self.clients, bool)
        draw = uniform_source(self.secure_noise, self.seed, "dp sampling", server_round)
        uniform = draw(self.clients)
        if self.sampling.kind == "poisson":
            return np.asarray(uniform < self.rate)
        drawn = np.zeros(self.clients, bool)
        drawn[np.argsort(uniform)[: self.sampling.sample]] = True
        return drawn

    def noise(self, server_round: int, size: int) -> NDArray[np.floating[Any]]:
        """Return the noise of the sum in units of the clip, shape (size,)."""
        source = gaussian_source(self.secure_noise, self.seed, "central dp", server_round)
        z = self._adapting.sum_multiplier if self._adapting else self.noise_multiplier
        return z * source(size)

    def weight(self, reply: Message) -> float:
        """Return n_k / ``weight_cap`` up to 1 where weights are capped."""
        if self.weight_cap is None:
            return super().weight(reply)
        count = metrics_of(reply).get("num-examples", 0)
        return min(max(count, 0) / self.weight_cap, 1.0) if isinstance(count, int) else 0.0

    def noise_clip(self, replies: Sequence[Message]) -> float:
        """Return the largest clip that clients say they kept, if all of them do, or C.

        Of single clients only: a mean of several says nothing of the largest.
        """
        if self.clip_by == "server" or not replies:
            return self.clip
        metrics = [metrics_of(reply) for reply in replies]
        stated: list[Any] = [m.get(_CLIP) if examples(m) == 1 else None for m in metrics]
        usable = all(isinstance(clip, float) and 0 < clip < math.inf for clip in stated)
        return min(self.clip, max(stated)) if usable else self.clip

    def summed(self, server_round: int, within: int, answered: int) -> None:
        """Keep the clip of the round, and adapt that of the next one."""
        self.clips.append((server_round, self.clip))
        if self._adapting:
            source = gaussian_source(self.secure_noise, self.seed, "dp quantile", server_round)
            share = self._adapting.share(within, answered, source(1))
            self.shares.append((server_round, share))
            self.clip *= self._adapting.factor(share)


class _Adaptive:
    """How the clip follows the norms."""

    def __init__(
        self, quantile: float, clip_lr: float, bit_noise: float | None, z: float, cohort: float
    ) -> None:
        expect(0 < quantile < 1, "quantile", quantile, "in (0, 1)")
        expect(0 < clip_lr < math.inf, "clip_lr", clip_lr, "more than 0 and finite")
        if z == 0:
            expect(not bit_noise, "bit_noise", bit_noise, "null or 0 where no noise is added")
            self.bit_noise = self.sum_multiplier = 0.0
        else:
            self.bit_noise = cohort / 20 if bit_noise is None else bit_noise
            allowed = f"more than {z / 2:.4g}, half of the noise multiplier {z:.4g}"
            if bit_noise is None:
                allowed += f" (null takes cohort/20={self.bit_noise:.4g})"
            expect(2 * self.bit_noise > z, "bit_noise", bit_noise, allowed)
            self.sum_multiplier = (z**-2 - (2 * self.bit_noise) ** -2) ** -0.5
        self.quantile, self.clip_lr, self.cohort = quantile, clip_lr, cohort

    def share(self, within: int, answered: int, noise: NDArray[np.floating[Any]]) -> float:
        """Return the noisy share of updates within the clip; ``noise`` is standard normal, (1,)."""
        # Halves are on the lattice: rounding moves the noise alone.
        centred = noised(np.array([within - answered / 2]), 2 * self.bit_noise * noise, 0.5)
        return float(centred[0]) / self.cohort + 0.5

    def factor(self, share: float) -> float:
        """Return by what the clip changes."""
        return math.exp(-self.clip_lr * (share - self.quantile))


def _check_weights(weighting: str, weight_cap: int | None, clip_by: str) -> None:
    if weighting == "equal":
        expect(weight_cap is None, "weight_cap", weight_cap, "null with weighting=equal")
        return
    expect(weight_cap is not None and weight_cap >= 1, "weight_cap", weight_cap, "at least 1")
    allowed = "equal with clip_by=clients, whose sum has no weights"
    expect(clip_by == "server", "weighting", weighting, allowed)


def _sampling(kind: str, rate: float, clients: int, neighbours: str) -> Sampling:
    expect(kind in SAMPLINGS, "sampling", kind, f"one of {', '.join(SAMPLINGS)}")
    expect(0 < rate <= 1, "rate", rate, "in (0, 1]")
    if kind == "poisson":
        return Sampling("poisson", rate)
    if kind == "all":
        expect(rate == 1, "rate", rate, "1 with sampling=all")
        return Sampling("all")
    expect(clients >= 1, "clients", clients, "at least 1")
    allowed = "replace_one with sampling=fixed, for which alone an account of it is known"
    expect(neighbours == Neighbours.REPLACE_ONE, "neighbours", neighbours, allowed)
    sample = round(rate * clients)
    expect(sample >= 1, "rate", rate, f"so much that at least one of {clients} clients is drawn")
    return Sampling("fixed", sample=sample, population=clients)
