"""DP-SGD at the client: the noise is in every step, so that records are protected from everybody.

M. Abadi, A. Chu, I. Goodfellow, H. B. McMahan, I. Mironov, K. Talwar, L. Zhang, "Deep Learning with
Differential Privacy", ACM CCS 2016, arXiv 1607.00133. The steps are those of
:mod:`fedmia.privacy.private_sgd`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor, nn

from clients.defenses.hiding import Handler
from clients.honest import DroppedOutError
from fedmia.errors import ConfigError, expect
from fedmia.observe import SPENT
from fedmia.privacy.accounting import Account, Neighbours, Sampling, composed, gaussian_release
from fedmia.privacy.budget import Budget, Settled
from fedmia.privacy.claim import EVERYBODY, Claim, Setting, large_delta
from fedmia.privacy.per_record import mixes_records
from fedmia.privacy.private_sgd import PrivateSGD, sampling_rate, steps
from fedmia.privacy.randomness import gaussian_source, uniform_source
from fedmia.privacy.worst_of import Capped, WorstOf
from fedmia.site import Trainer
from fedmia.training import FlatModel, LocalSGD

_STATE = "dp_sgd"
_WORST = "ε is that of the client that is worst off after so many participations"
_REASONS = (
    "every step of every participation is counted, so it holds for all updates together",
    "the number of records, and with it the sampling rate and the number of steps, is public",
    "that a client takes part, and that it cannot, is not hidden",
)


@dataclass(frozen=True)
class DpSgd:
    """Trains with DP-SGD, and takes from the answer what was computed on the records beside it.

    Every step draws each of the client's n records with probability q = batch_size / n. A
    participation has local_epochs · ⌈n / batch_size⌉ steps; one that would cost more than the
    budget is refused.

    Parameters
    ----------
    recipe
        What clients train by. What other training defences make of it must still be
        :class:`LocalSGD`, with as many epochs and the same batch size.
    clip
        C, of a record's gradient in L2 norm, over all trainable parameters.
    noise_multiplier, epsilon, delta
        z, and the budget of a client, which finds its own z for its number of records; see
        :class:`fedmia.privacy.budget.Budget`.
    rounds
        Participations that the budget is for; with one, no client takes part in more.
    public_sizes
        Whether to tell the number of records; if not, all clients count as one example.
    secure_noise
        Whether noise and draws come from a secure source and cannot be repeated.
    seed
        Of both, if not.
    allow_evaluation
        Whether to answer ``evaluate`` messages, whose metrics have no noise.

    Raises
    ------
    ConfigError
        If a value is out of its range, or the recipe is none of steps of SGD.
    """

    recipe: LocalSGD = field(default_factory=LocalSGD)
    clip: float = 1.0
    noise_multiplier: float | None = None
    epsilon: float | None = 8.0
    delta: float = 1e-5
    rounds: int = 30
    public_sizes: bool = False
    secure_noise: bool = False
    seed: int = 0
    allow_evaluation: bool = False
    adds_noise: ClassVar = True
    own_steps: ClassVar = True

    def __post_init__(self) -> None:
        expect(0 < self.clip < math.inf, "clip", self.clip, "more than 0 and finite")
        expect(self.rounds >= 1, "rounds", self.rounds, "at least 1")
        kind = type(self.recipe)
        allowed = "LocalSGD (train=local_sgd), whose steps are clipped and noised"
        expect(kind is LocalSGD, "recipe", kind.__name__, allowed)
        Budget(self.noise_multiplier, self.epsilon, self.delta)

    def check_model(self, module: nn.Module) -> None:
        """Refuse layers that mix records, or that keep what they saw of them without noise.

        Raises
        ------
        ConfigError
            In one line, with the first such layer and what to do.
        """
        for name, layer in module.named_modules():
            kind = type(layer).__name__
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                allowed = "no BatchNorm, which mixes records: nn.GroupNorm in its place "
                allowed += "(opacus.validators.ModuleValidator.fix puts it there)"
                expect(False, "model", f"{kind} '{name}'", allowed)
            if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
                tracks = layer.track_running_stats
                expect(not tracks, "model", f"{kind} '{name}'", "track_running_stats=False")

    def check_records(self, records: Iterable[int]) -> None:
        """Refuse a budget that one of these clients could not take part under once.

        Noise that clients find for themselves fits their budgets.

        Raises
        ------
        ConfigError
            In one line, with what one participation costs.
        """
        for n in sorted({n for n in records if n > 0}) if self._given else ():
            self.settled(n)

    def claims(self, setting: Setting) -> list[Claim]:
        """Return what the records of the client that is worst off are promised, whoever looks.

        Raises
        ------
        ConfigError
            If the budget does not allow a client to take part once.
        """
        sizes = sorted({n for n in setting.records if n > 0})
        if self._given:
            costs = {
                n: self._capped(n).curve([setting.rounds])[0]
                for n in {*self._undominated(sizes), sizes[-1]}
            }
            worst = max(costs, key=lambda n: costs[n])
            spread = f"in the end ε={costs[worst]:.4g} with {worst} records"
            spread += f", {costs[sizes[-1]]:.4g} with {sizes[-1]}, the most"
        else:
            few, many = (self.settled(n).noise_multiplier for n in (sizes[0], sizes[-1]))
            spread = "every client finds the noise for its own number of records: "
            spread += f"noise_multiplier={few:.4g} with {sizes[0]}, {many:.4g} with {sizes[-1]}"
        account = WorstOf(
            Neighbours.ADD_REMOVE,
            self.delta,
            lambda: [self._capped(n) for n in self._undominated(sizes)],
        )
        return [
            Claim(
                unit="record",
                account=account,
                holds_against=EVERYBODY,
                per_participation=True,
                reasons=(_WORST, spread, *_REASONS),
                secure=self.secure_noise,
                warnings=large_delta("delta", self.delta, sizes[0], "records"),
            )
        ]

    def settled(self, n: int) -> Settled:
        """Return the noise of a client with n records, and the participations it can afford.

        Raises
        ------
        ConfigError
            If these are none.
        """
        budget = Budget(self.noise_multiplier, self.epsilon, self.delta)
        return budget.settle(self.rounds, _AccountOf(self.recipe, n, self.delta))

    def account(self, n: int) -> Account:
        """Return the account of a client with n records, by participations."""
        return _AccountOf(self.recipe, n, self.delta)(self.settled(n).noise_multiplier)

    def trains(self, trainer: Trainer, context: Context) -> Trainer:
        """Return the private recipe, which keeps its account in the context.

        Raises
        ------
        ConfigError
            If the recipe is not the one that the account is for.
        """
        ours = (self.recipe.local_epochs, self.recipe.batch_size)
        base = trainer if isinstance(trainer, LocalSGD) and type(trainer) is LocalSGD else None
        if base and (base.local_epochs, base.batch_size) == ours:
            return _Accounted(self, base, context)
        raise ConfigError(
            f"client.defenses.dp_sgd.recipe={self.recipe}: expected the client's own, {trainer}"
        )

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer ``train`` with the model and nothing else; pass on what is no ``train``.

        Raises
        ------
        PermissionError
            If asked to evaluate without ``allow_evaluation``.
        """
        kind = message.metadata.message_type.split(".")[0]
        if kind == "evaluate" and not self.allow_evaluation:
            raise PermissionError("evaluate: its metrics have no noise (allow_evaluation=false)")
        reply = call_next(message, context)
        if kind != "train" or reply.has_error():
            return reply
        ((name, arrays),) = reply.content.array_records.items()
        told = [m["num-examples"] for m in reply.content.metric_records.values()]
        metrics = MetricRecord({"num-examples": told[0] if self.public_sizes else 1})
        return Message(RecordDict({name: arrays, "metrics": metrics}), reply_to=message)

    def _capped(self, n: int) -> Capped:
        """Return what a client with n records spends."""
        return Capped(self.account(n), self.settled(n).affordable)

    def _undominated(self, sizes: Sequence[int]) -> list[int]:
        """Leave out who has the noise, steps and participations of a client with fewer records.

        Its sampling rate is lower, so that no number of participations costs it more.
        """
        if not self._given:
            return [*sizes]
        fewest: dict[tuple[int, int | None], int] = {}
        for n in sorted(sizes):
            fewest.setdefault((steps(self.recipe, n), self.settled(n).affordable), n)
        return [*fewest.values()]

    @property
    def _given(self) -> bool:
        """Whether all clients add the same noise."""
        return self.noise_multiplier is not None or self.epsilon == math.inf


@dataclass(frozen=True)
class _AccountOf:
    """Returns what participations cost a client with ``n`` records, given the noise."""

    recipe: LocalSGD
    n: int
    delta: float

    def __call__(self, noise_multiplier: float) -> Account:
        sampling = Sampling("poisson", rate=sampling_rate(self.recipe, self.n))
        step = gaussian_release(noise_multiplier, sampling)
        release = composed(step, times=steps(self.recipe, self.n))
        return Account(release, Neighbours.ADD_REMOVE, self.delta)


@dataclass(frozen=True)
class _Accounted:
    """Trains privately if the client's account, in its context, allows it."""

    defense: DpSgd
    base: LocalSGD
    context: Context

    def fit(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> float:
        """Train in place and return NaN: the loss on the records is not told.

        Raises
        ------
        DroppedOutError
            If a further participation would cost more than the budget.
        ValueError
            If the number of records is another than the account was opened for, or the model mixes
            records.
        RuntimeError
            If training has changed a buffer of the model, which would leave without noise.
        """
        defense, n = self.defense, len(y)
        state = self.context.state.config_records.get(_STATE)
        taken = int(str(state["participations"])) if state else 0
        if state and state["records"] != n:
            raise ValueError(f"{n} records: the account is for {state['records']!r}")
        settled = defense.settled(n)
        if settled.affordable is not None and taken >= settled.affordable:
            raise DroppedOutError(
                f"{SPENT}: epsilon={defense.epsilon} after {taken} participations"
            )
        if not taken and mixes_records(model.module.train(), x):
            raise ValueError("the model mixes records: what it returns for one depends on others")
        self.context.state[_STATE] = ConfigRecord({"participations": taken + 1, "records": n})
        client = int(self.context.node_config["partition-id"])
        # By participations, not by rounds: a server could state a round twice.
        key = (defense.secure_noise, defense.seed)
        draws = uniform_source(*key, "dp_sgd draws", client, taken)
        noise = gaussian_source(*key, "dp_sgd", client, taken)
        buffers = [buffer.clone() for buffer in model.module.buffers()]
        private = PrivateSGD(self.base, defense.clip, settled.noise_multiplier)
        private.train(model, x, y, draws, noise)
        if not all(map(torch.equal, buffers, model.module.buffers())):
            raise RuntimeError("training has changed a buffer, which would leave without noise")
        return math.nan
