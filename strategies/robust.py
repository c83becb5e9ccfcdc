"""What robust aggregation rules share: updates in, one update out, and clients left out on the way.

Such a rule wraps a strategy that is linear in the updates, which chooses the clients and makes a
new model of one reply: the model moved by what the rule makes of all updates. All clients count
the same, whatever number of examples they state: that number is a client's own word.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedmia.arrays import to_params, to_record
from fedmia.errors import expect
from fedmia.suspicion import Flag
from strategies.linear import is_linear
from strategies.open_updates import expect_open
from strategies.updates import Layout, Updates, read

log = logging.getLogger(__name__)


class Robust(Strategy, ABC):
    """Wrap a linear strategy, and give it what a rule makes of the clients' updates.

    Updates that are not finite, too large or malformed are rejected and their senders flagged. A
    round with fewer updates than the rule needs is aggregated by the coordinate-wise median, which
    needs no number of them, and ``fallbacks`` has its number and the reason. A round with none is
    abandoned: the model stays as it is, and ``abandoned`` has the same of it. ``flags`` has what
    the rule has against single clients.

    Parameters
    ----------
    inner
        A strategy that is linear in the updates and adds no noise.
    """

    rejects_updates: ClassVar[bool] = True
    """Updates that are not finite do not end training."""

    fewest: int = 1
    """Updates that the rule needs in a round."""

    def __init__(self, inner: Strategy) -> None:
        expect_open(inner)
        name = type(inner).__name__
        expect(is_linear(inner), "inner", name, "a rule that is linear in the updates")
        noisy = bool(getattr(inner, "adds_noise", False))
        allowed = "a rule without noise of its own: it would bound what this rule makes of all "
        expect(not noisy, "inner", name, f"{allowed}clients, not one client")
        self.inner = inner
        self.flags: list[Flag] = []
        self.fallbacks: list[tuple[int, str]] = []
        self.abandoned: list[tuple[int, str]] = []
        self._begun: tuple[str, Layout, int] | None = None

    @abstractmethod
    def combine(self, updates: Updates) -> NDArray[np.floating[Any]] | None:
        """Return the update of the global model, (d,); ``None`` if there is none to be had.

        Parameters
        ----------
        updates
            At least ``fewest`` of them. The matrix may be overwritten.
        """

    def check_asked(self, asked: int) -> None:
        """Refuse settings that cannot serve a round in which ``asked`` clients answer.

        Raises
        ------
        ConfigError
            In one line: the key, its value, what is allowed.
        """

    def admitted(self, server_round: int, nodes: Collection[int]) -> Collection[int]:
        """Return which of the nodes that would be asked may take part; all of them."""
        return nodes

    def summary(self) -> None:
        """Log the rule and the strategy behind it."""
        log.info("%s around:", type(self).__name__)
        self.inner.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask those whom the wrapped strategy asks, without the ones that are not admitted."""
        self._begun = None
        messages = list(self.inner.configure_train(server_round, arrays, config, grid))
        nodes = [message.metadata.dst_node_id for message in messages]
        admitted = set(self.admitted(server_round, nodes))
        messages = [m for m in messages if m.metadata.dst_node_id in admitted]
        if not messages:
            if nodes:
                self._abandon(server_round, f"all {len(nodes)} clients are isolated")
            return []
        ((name, model),) = messages[0].content.array_records.items()
        self._begun = name, Layout(to_params(model)), messages[0].metadata.dst_node_id
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Apply the rule, and let the wrapped strategy make of its update what it will."""
        begun, self._begun = self._begun, None
        if begun is None:
            return None, None
        name, layout, node = begun
        updates, rejected = read(layout, server_round, replies)
        self.flags += rejected
        for flag in rejected:
            log.warning("Round %d: node %d: %s", server_round, flag.node_id, flag.reason)
        change = self._combined(updates)
        if change is None:
            return None, None
        metrics = MetricRecord({getattr(self.inner, "weighted_by_key", "num-examples"): 1})
        if len(losses := updates.losses[np.isfinite(updates.losses)]):
            metrics["train-loss"] = float(np.median(losses))
        content = RecordDict({name: to_record(layout.moved(change)), "metrics": metrics})
        reply = Message(content, reply_to=Message(RecordDict(), node, "train"))
        return self.inner.aggregate_train(server_round, [reply])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the wrapped strategy does."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Aggregate as the wrapped strategy does."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def _combined(self, updates: Updates) -> NDArray[np.floating[Any]] | None:
        number, there = updates.server_round, len(updates)
        if not there:
            self._abandon(number, "no client sent an update that counts")
            return None
        if there < self.fewest:
            reason = f"{there} updates, {type(self).__name__} needs {self.fewest}: their median"
            log.warning("Round %d: %s", number, reason)
            self.fallbacks.append((number, reason))
            return np.asarray(np.median(updates.matrix, axis=0, overwrite_input=True))
        change = self.combine(updates)
        if change is None:
            self._abandon(number, f"{type(self).__name__} trusts none of {there} clients")
        return change

    def _abandon(self, server_round: int, reason: str) -> None:
        log.warning("Round %d is abandoned: %s", server_round, reason)
        self.abandoned.append((server_round, reason))
