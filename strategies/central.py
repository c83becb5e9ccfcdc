"""What strategies share in which the server adds the noise of differential privacy.

Such a strategy chooses who takes part, sums the clipped updates, adds noise to the sum and divides
it by a number that is fixed beforehand. The strategy that it wraps gets one reply: the model moved
by that.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.arrays import to_params, to_record
from fedmia.errors import expect
from fedmia.privacy.budget import Budget
from fedmia.privacy.claim import RELEASED, Claim, Setting, large_delta
from fedmia.privacy.cost import Cost
from fedmia.privacy.lattice import noised
from strategies.clipped_sum import ClippedSum
from strategies.linear import is_linear

log = logging.getLogger(__name__)

CLIPPERS = ("server", "clients")


class Central(Strategy, ABC):
    """Wrap a linear strategy, and give it the noisy mean of the clipped updates alone.

    A client that is lost makes the sum smaller and the noise no larger. Where no client was drawn,
    noise is released all the same, or its absence would tell. Before a round that would cost more
    than ``epsilon``, training stops: ``stopped`` has its number and the reason, and the model
    stays as it is.

    All clients have to be there in the first round: the ranks of their node ids then are their
    places for good. The place of one that is away later stays empty, so that nobody takes part
    outside its own rounds, and a node that was not there at first is never asked.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates and asks all clients.
    clip
        Bound of the L2 norm of a client's weighted update.
    budget
        The noise, what it may cost, or both.
    account_of
        Returns the account of a noise multiplier; hashable.
    rounds, clients
        Of the federation, fixed beforehand.
    clip_by
        ``server``; or ``clients``, where the mod ``clipping`` has clipped: then a reply counts as
        many updates as its number of examples says, so that it may be the mean of them.
    secure_noise
        Whether noise and sampling come from a secure source instead of ``seed``.
    seed
        Of noise and sampling.
    per_layer
        Whether each of the L arrays is clipped on its own, to ``clip / √L``.
    """

    linear: ClassVar[bool] = True
    adds_noise: ClassVar[bool] = True
    goes_on: ClassVar[bool] = True
    """A round in which every client failed does not end training: its noise is released."""

    def __init__(
        self,
        inner: Strategy,
        clip: float,
        budget: Budget,
        account_of: Callable[[float], Cost],
        rounds: int,
        clients: int,
        clip_by: str,
        secure_noise: bool,
        seed: int,
        per_layer: bool = False,
    ) -> None:
        name = type(inner).__name__
        expect(is_linear(inner), "inner", name, "a rule that is linear in the updates")
        share = getattr(inner, "fraction_train", 1.0)
        expect(share == 1, "inner.fraction_train", share, "1: the clients are drawn outside of it")
        expect(0 < clip < math.inf, "clip", clip, "more than 0 and finite")
        expect(rounds >= 1, "rounds", rounds, "at least 1")
        expect(clients >= 1, "clients", clients, "at least 1")
        expect(clip_by in CLIPPERS, "clip_by", clip_by, f"one of {', '.join(CLIPPERS)}")
        settled = budget.settle(rounds, account_of)
        self.inner, self.clip, self.budget, self.clip_by = inner, clip, budget, clip_by
        self.rounds, self.clients = rounds, clients
        self.noise_multiplier, self.affordable = settled.noise_multiplier, settled.affordable
        self.account = account_of(self.noise_multiplier)
        self.secure_noise, self.seed, self.per_layer = secure_noise, seed, per_layer
        self.stopped: tuple[int, str] | None = None
        self.warnings = self._warnings()
        self._begun: tuple[str, ArrayRecord, int] | None = None
        self._nodes: tuple[int, ...] = ()

    @property
    @abstractmethod
    def cohort(self) -> float:
        """By what the sum is divided: the clients expected in a round, whoever answers."""

    @abstractmethod
    def participants(self, server_round: int) -> NDArray[np.bool_]:
        """Return who takes part, by rank of the node id in the first round, shape (clients,)."""

    @abstractmethod
    def noise(self, server_round: int, size: int) -> NDArray[np.floating[Any]]:
        """Return the noise of the sum in units of the clip, shape (size,)."""

    @property
    @abstractmethod
    def reasons(self) -> tuple[str, ...]:
        """What ε assumes of who takes part and of the noise, a line each."""

    def weight(self, reply: Message) -> float:
        """Return the weight of a clipped update, in [0, 1], or how many updates a mean is of."""
        return examples(metrics_of(reply)) if self.clip_by == "clients" else 1.0

    def noise_clip(self, replies: Sequence[Message]) -> float:
        """Return the bound that the noise is scaled by, given all replies without error."""
        return self.clip

    def summed(self, server_round: int, within: int, answered: int) -> None:
        """Learn how many updates were within the clip, of those that were summed."""

    def summary(self) -> None:
        """Log the settings, and what they cost."""
        spent = self.account.epsilon(min(self.rounds, self.affordable or self.rounds))
        log.info(
            "%s: clip %g, noise multiplier %.4g, (ε=%.4g, δ=%g) at client level after training",
            type(self).__name__,
            self.clip,
            self.noise_multiplier,
            spent,
            self.budget.delta,
        )
        for warning in self.warnings:
            log.warning("%s", warning)
        self.inner.summary()

    def claims(self, setting: Setting) -> list[Claim]:
        """Return what is promised to each client against those who see released models."""
        seen = f"only their sum ({setting.hidden})" if setting.hidden else "every update"
        reasons = [
            f"the server sees {seen} before it adds the noise: nothing is promised against it",
            f"the sum is divided by {self.cohort:g}, fixed beforehand, whoever answers",
            *self.reasons,
        ]
        if self.clip_by == "clients":
            reasons.append("clients clip their own updates: one that does not voids the promise")
        if self.noise_multiplier and not self.secure_noise:
            reasons.append("noise and sampling are drawn from the seed (secure_noise=false)")
        return [
            Claim(
                unit="client",
                account=self.account,
                holds_against=RELEASED,
                reasons=tuple(reasons),
                secure=self.secure_noise,
                warnings=tuple(self.warnings),
            )
        ]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask those who take part; nobody where the budget does not allow the round.

        Raises
        ------
        RuntimeError
            If in the first round there are not as many nodes as clients are configured, or later
            none at all.
        """
        self._begun = None
        if self.affordable is not None and server_round > self.affordable:
            self._stop(server_round)
            return []
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        there = {message.metadata.dst_node_id: message for message in messages}
        if not self._nodes:
            if len(there) != self.clients:
                raise RuntimeError(
                    f"{len(there)} clients in the first round: expected {self.clients}, as "
                    "configured, since each has its place from then on"
                )
            self._nodes = tuple(sorted(there))
        if not there:
            raise RuntimeError(f"round {server_round}: no client is there")
        ((name, model),) = messages[0].content.array_records.items()
        self._begun = name, model, messages[0].metadata.dst_node_id
        drawn = zip(self._nodes, self.participants(server_round), strict=True)
        return [there[node] for node, here in drawn if here and node in there]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Sum what came, add the noise, and let the wrapped strategy make of it what it will."""
        begun, self._begun = self._begun, None
        if begun is None:
            return None, None
        name, model, node = begun
        answers = [reply for reply in replies if not reply.has_error()]
        limit = math.inf if self.clip_by == "clients" else self.clip
        sums = ClippedSum(to_params(model), limit, self.clients, self.per_layer)
        within = sum(self._add(sums, reply) for reply in answers)
        noisy = sums.total
        if self.noise_multiplier:
            noise = self.noise(server_round, len(noisy))
            noisy = noised(noisy, noise, self.noise_clip(answers))
        self.summed(server_round, within, len(answers))
        released = {**to_params(model), **sums.moved(noisy / self.cohort)}
        metrics = MetricRecord({getattr(self.inner, "weighted_by_key", "num-examples"): 1})
        content = RecordDict({name: to_record(released), "metrics": metrics})
        reply = Message(content, reply_to=Message(RecordDict(), node, "train"))
        return self.inner.aggregate_train(server_round, [reply])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the wrapped strategy does; metrics of an evaluation have no noise."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Aggregate as the wrapped strategy does."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def _add(self, sums: ClippedSum, reply: Message) -> bool:
        arrays = next(r for r in reply.content.values() if isinstance(r, ArrayRecord))
        try:
            return sums.add(to_params(arrays), self.weight(reply))
        except ArithmeticError as error:
            log.warning("node %d: %s: it counts as none", reply.metadata.src_node_id, error)
            return False

    def _stop(self, server_round: int) -> None:
        if self.stopped is None:
            spent, asked = self.account.epsilon(server_round - 1), self.budget.epsilon
            reason = (
                f"ε={spent:.4g} is spent, and another round would cost more than epsilon={asked}"
            )
            log.warning("Training stops before round %d: %s", server_round, reason)
            self.stopped = server_round, reason

    def _warnings(self) -> list[str]:
        found = [*large_delta("delta", self.budget.delta, self.clients, "clients")]
        share = getattr(self.inner, "fraction_evaluate", 0.0)
        if share:
            found.append(f"metrics of evaluations have no noise (inner.fraction_evaluate={share})")
        return found


def metrics_of(reply: Message) -> MetricRecord:
    """Return the metrics of a reply, none if it has none."""
    return next((r for r in reply.content.values() if isinstance(r, MetricRecord)), MetricRecord())


def examples(metrics: MetricRecord) -> int:
    """Return how many updates a reply counts as where clients clip; 1 if it does not say."""
    count = metrics.get("num-examples", 1)
    return count if isinstance(count, int) else 1
