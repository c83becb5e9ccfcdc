"""Clipping at a threshold of the client's own, by how sensitive its training is to its data.

Thresholds that follow the clients' norms are due to G. Andrew, O. Thakkar, H. B. McMahan, S.
Ramaswamy, "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021, who keep one for
all. One for each client tells of its data: it has to be released with noise itself, and the noise
of the sum has to fit the largest. Raw local sensitivity is no basis for noise: K. Nissim, S.
Raskhodnikova, A. Smith, "Smooth Sensitivity and Sampling in Private Data Analysis", STOC 2007.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from flwr.app import ConfigRecord, Context, Message

from clients.defenses.hiding import Handler
from clients.defenses.updates import Update, answered, clipped, norm, round_of
from fedmia.errors import expect
from fedmia.privacy.accounting import (
    Account,
    Neighbours,
    Release,
    composed,
    gaussian_release,
)
from fedmia.privacy.claim import RELEASED, Claim, Setting
from fedmia.privacy.cost import Cost
from fedmia.privacy.lattice import margin, noised
from fedmia.privacy.randomness import gaussian_source

DP_CLIP = "dp-clip"
"""The metric by which an answer says what bound it keeps."""

FORMS = ("released", "heuristic")

_STATE = "sensitivity_clip"


@dataclass(frozen=True)
class SensitivityClip:
    """Clips the update in an answer to a ``train`` message to C_k, which goes with it.

    The strategy scales its noise to the largest C_k of a round. The norm of the client's update
    stands for how sensitive its training is to its data; C_k comes of it in one of two forms.

    ``released``
        In every so many participations ln C_k is the logarithm of the norm, bounded to the range,
        plus Gaussian noise, bounded again. Since each C_k has its noise, the sum with noise at the
        largest may follow: the two compose. All that see the scale of the noise learn of every
        client that takes part, so neighbours are two data sets of one client.
    ``heuristic``
        A quantile of the norms so far, and the clip before there are any. It tells of the data
        without noise, and so does noise scaled to it: nothing is promised.

    All clients count as one example, and no other metric leaves.

    Parameters
    ----------
    form
        ``released`` or ``heuristic``.
    low, clip
        Range of a threshold; the largest is the strategy's own clip.
    every
        Participations for which a released threshold is kept.
    release_multiplier
        Standard deviation of the noise of ln C_k, in units of half its range, ln(clip/low)/2.
    quantile
        Of a client's norms, for ``heuristic``.
    secure_noise
        Whether noise comes from a secure source and cannot be repeated.
    seed
        Of the noise, if not.
    """

    form: str = "released"
    low: float = 0.1
    clip: float = 1.0
    every: int = 10
    release_multiplier: float = 10.0
    quantile: float = 0.5
    secure_noise: bool = False
    seed: int = 0
    needs_open_updates: ClassVar = True
    clips_updates: ClassVar = True

    def __post_init__(self) -> None:
        expect(self.form in FORMS, "form", self.form, f"one of {', '.join(FORMS)}")
        expect(0 < self.low < math.inf, "low", self.low, "more than 0 and finite")
        allowed = f"more than low={self.low} and finite"
        expect(self.low < self.clip < math.inf, "clip", self.clip, allowed)
        expect(self.every >= 1, "every", self.every, "at least 1")
        z = self.release_multiplier
        expect(0 < z < math.inf, "release_multiplier", z, "more than 0 and finite")
        expect(0 <= self.quantile <= 1, "quantile", self.quantile, "in [0, 1]")

    @property
    def adds_noise(self) -> bool:
        """Whether something leaves with noise of this mod."""
        return self.form == "released"

    @property
    def replaces_claims(self) -> bool:
        """Whether the strategy's own claim, of the sum alone, is no longer the whole truth."""
        return self.form == "released"

    @property
    def voids_epsilon(self) -> bool:
        """Whether no part of the federation can promise an ε beside this."""
        return self.form == "heuristic"

    def claims(self, setting: Setting) -> list[Claim]:
        """Return what holds for thresholds and sum together, in place of the strategy's claim."""
        if self.voids_epsilon:
            reason = "no ε: the thresholds, and noise scaled to them, depend on the clients' data"
            return [Claim("client", None, (), reasons=(reason,))]
        noisy = [claim for claim in setting.strategies if isinstance(claim.account, Account)]
        if len(noisy) != 1:
            reason = "no ε: the sum has no noise of its own in every round, the thresholds alone do"
            return [Claim("client", None, RELEASED, reasons=(reason,))]
        (of_sum,) = noisy
        account = of_sum.account
        assert isinstance(account, Account)
        cost = ThresholdsAndSum(
            account.release.unsampled, self.release_multiplier, self.every, account.delta
        )
        alone = cost.thresholds(setting.rounds).epsilon(1)
        reasons = (
            "composed of the released thresholds and the sum with noise at the largest of them, "
            "without amplification by sampling",
            f"of it the thresholds alone cost ε={alone:.3g} in {setting.rounds} rounds",
            "neighbours: any two data sets of one client; who takes part is not hidden",
            "every client keeps to its threshold, and the strategy scales its noise to the largest",
        )
        secure = self.secure_noise and of_sum.secure
        return [Claim("client", cost, RELEASED, True, reasons, secure)]

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer with the clipped update and its bound; pass on what is no answer to ``train``."""

        def change(update: Update) -> tuple[Update, Mapping[str, float]]:
            released = self.form == "released"
            threshold = self._released if released else self._by_history
            bound = threshold(norm(update), context, round_of(message))
            return clipped(update, bound), {DP_CLIP: bound}

        return answered(message, context, call_next, change)

    def _released(self, length: float, context: Context, server_round: int) -> float:
        """Return ``exp(ln ‖Δ‖ + N(0, (z·ln(clip/low)/2)²))`` in the range, or the one kept."""
        state = _state(context)
        taken, bound = int(state.get("participations", 0)), float(state.get("threshold", 0.0))
        if taken % self.every == 0:
            key = (int(context.node_config["partition-id"]), server_round, taken)
            noise = gaussian_source(self.secure_noise, self.seed, "clip threshold", *key)
            half = math.log(self.clip / self.low) / 2
            # On a lattice of half the range, of whose width rounding takes its share.
            value = np.array([math.log(self._bounded(length))])
            noisy = noised(value, (1 + margin(1)) * self.release_multiplier * noise(1), half)
            bound = self._bounded(math.exp(min(float(noisy[0]), math.log(self.clip))))
        context.state[_STATE] = ConfigRecord({"participations": taken + 1, "threshold": bound})
        return bound

    def _by_history(self, length: float, context: Context, server_round: int) -> float:
        """Return the quantile of the norms before this one, in the range."""
        past = [*_state(context).get("norms", ())]
        context.state[_STATE] = ConfigRecord({"norms": [*past, length]})
        return self._bounded(float(np.quantile(past, self.quantile))) if past else self.clip

    def _bounded(self, threshold: float) -> float:
        return min(max(threshold, self.low), self.clip)


@dataclass(frozen=True)
class ThresholdsAndSum(Cost):
    """Thresholds in every so many rounds, and a sum in each; all clients take part.

    Parameters
    ----------
    sum
        What a round's sum releases, in units of the largest threshold.
    release_multiplier
        Of a threshold's logarithm, in units of half its range.
    every
        Rounds for which a threshold is kept.
    delta
        δ.
    """

    sum: Release
    release_multiplier: float
    every: int
    delta: float
    neighbours: Neighbours = Neighbours.REPLACE_ONE

    @property
    def method(self) -> str:
        """As for any composition of Gaussian releases."""
        return self._together(1).method

    def epsilon(self, rounds: int) -> float:
        """Return ε of all that so many rounds release."""
        return self._together(rounds).epsilon(1)

    def epsilon_rdp(self, rounds: int) -> float | None:
        """Return the same by Rényi differential privacy."""
        return self._together(rounds).epsilon_rdp(1)

    def under(self, neighbours: Neighbours) -> Cost | None:
        """Return this; with a client more or less there is a threshold more or less, no ε."""
        return self if neighbours == self.neighbours else None

    def thresholds(self, rounds: int) -> Account:
        """Return the account of the thresholds alone, all rounds for one."""
        release = gaussian_release(self.release_multiplier)
        times = math.ceil(rounds / self.every)
        return Account(composed(release, times=times), self.neighbours, self.delta)

    def _together(self, rounds: int) -> Account:
        """Return the account of all rounds for one."""
        both = composed(self.thresholds(rounds).release, composed(self.sum, times=rounds))
        return Account(both, self.neighbours, self.delta)


def _state(context: Context) -> Mapping[str, Any]:
    record = context.state.config_records.get(_STATE)
    return cast(Mapping[str, Any], record) if record else {}
