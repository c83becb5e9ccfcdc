"""Sums of groups: what a rule that is not linear can still look at under secure aggregation.

R. K. Velicheti, D. Xia, O. Koyejo, "Secure Byzantine-Robust Distributed Learning via Clustering",
2021, arXiv 2110.02940: secure sums within random groups, then a robust rule over the groups.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy

from fedmia.arrays import to_params
from fedmia.errors import expect
from fedmia.records import Update, difference
from fedmia.secagg.codec import Mean
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.protocol import Protocol
from strategies.groups import Grouping, Heads
from strategies.open_updates import expect_open
from strategies.secagg_plus import SecAggPlus
from strategies.sums_only import Begun, mean_reply

log = logging.getLogger(__name__)


class GroupedSums(Strategy):
    """Sum each group of clients under masks, and give any rule one reply a group: its mean model.

    The groups are drawn once. Drawn anew, sums of different groups could be subtracted from one
    another, round after round, until single clients stand out. The wrapped strategy sees a
    federation of groups: it samples them, leaves them out and waits for them as for clients. A
    group that cannot be summed is left out of the round, which ``fallbacks`` says; a round without
    any is abandoned. Groups with attackers in them are lost to the rule with their honest clients,
    so it has to bear one bad group for each attacker.

    The server sees each group's sum, which tells more of a client than the sum of all does:
    ``seen`` has those of the last round, as updates of the groups' first nodes.

    Parameters
    ----------
    inner
        Any strategy that adds no noise, needs no mod and sees single updates.
    protocol
        The public parameters of one group's sum, the same as the clients'.
    group_size
        Most clients of a group; sizes differ by one at most.
    clients
        Of the federation.
    seed
        Of the draw of the groups.
    timeout_s
        How long to wait for the answers to a stage other than training; ``None`` waits for ever.
    """

    hides_updates: ClassVar[str] = "secagg_plus"
    needs_mod: ClassVar[str] = "secagg_plus"
    uniform_words: ClassVar[bool] = True

    def __init__(
        self,
        inner: Strategy,
        protocol: Protocol,
        group_size: int,
        clients: int,
        seed: int = 0,
        timeout_s: float | None = None,
    ) -> None:
        self.grouping = Grouping(group_size, clients, seed)
        allowed = f"at least group_size={group_size}"
        expect(protocol.cohort >= group_size, "protocol.cohort", protocol.cohort, allowed)
        allowed = "none: what it promises is not accounted for sums of groups"
        mechanism = protocol.noise.mechanism
        expect(not protocol.noise, "protocol.noise.mechanism", mechanism, allowed)
        expect(timeout_s is None or timeout_s > 0, "timeout_s", timeout_s, "null or more than 0")
        _expect_plain(inner, self.grouping.groups)
        self.inner, self.protocol, self.timeout_s = inner, protocol, timeout_s
        self.abandoned: list[tuple[int, str]] = []
        self.fallbacks: list[tuple[int, str]] = []
        self.clipped: list[tuple[int, float]] = []
        self.groups: dict[int, tuple[int, ...]] = {}
        self.seen: tuple[int, tuple[Update, ...]] = (0, ())
        self._begun: dict[int, tuple[Begun, SecAggPlus]] = {}

    @property
    def asks(self) -> tuple[str, int, int]:
        """The setting by which clients are summed together, and how many are at least."""
        return "group_size", self.grouping.group_size, self.grouping.smallest

    @property
    def hands_on(self) -> int:
        """How many groups the wrapped strategy asks for in a round."""
        for part in _within(self.inner):
            if (share := getattr(part, "fraction_train", None)) is not None:
                drawn = int(self.grouping.groups * share)
                return max(drawn, int(getattr(part, "min_train_nodes", 0)))
        return self.grouping.groups

    def summary(self) -> None:
        """Log the settings."""
        log.info("%d groups of at most %d:", self.grouping.groups, self.grouping.group_size)
        self.inner.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the clients of the groups that the wrapped strategy asks for hidden updates."""
        self._begun = {}
        self.groups = self.groups or self.grouping.of(grid.get_node_ids())
        heads = Heads(grid, self.groups)
        asked: list[Message] = []
        found = list(self.inner.configure_train(server_round, arrays, config, heads))
        for message in sorted(found, key=lambda m: m.metadata.dst_node_id):
            head = message.metadata.dst_node_id
            nodes = tuple(node for node in self.groups[head] if node in heads.there)
            ((name, model),) = message.content.array_records.items()
            begun = Begun(server_round, name, to_params(model), nodes, grid)
            protocol = SecAggPlus(FedAvg(), self.protocol, self.timeout_s)
            try:
                asked += protocol.begin(begun, [_to(node, message) for node in nodes])
            except ProtocolError as error:
                self._leave_out(server_round, head, error)
            else:
                self._begun[head] = begun, protocol
        if found and not self._begun:
            self._abandon(server_round)
        return asked

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Have each group's sum uncovered, and give the wrapped strategy their means."""
        groups, self._begun = self._begun, {}
        replies = list(replies)
        answers: list[Message] = []
        seen: list[Update] = []
        clipped: list[float] = []
        for head, (begun, protocol) in groups.items():
            own = [r for r in replies if r.metadata.src_node_id in begun.nodes]
            try:
                mean = protocol.finish(begun, own)
            except ProtocolError as error:
                self._leave_out(server_round, head, error)
                continue
            answers.append(mean_reply(begun, mean, head))
            seen.append(_update(head, begun, mean))
            clipped += [] if mean.clipped is None else [mean.clipped]
        self.seen = server_round, tuple(seen)
        if clipped:
            self.clipped.append((server_round, float(np.mean(clipped))))
        if not answers:
            if groups:
                self._abandon(server_round)
            return None, None
        return self.inner.aggregate_train(server_round, answers)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the wrapped strategy does; metrics of an evaluation are not hidden."""
        return self.inner.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Aggregate as the wrapped strategy does."""
        return self.inner.aggregate_evaluate(server_round, replies)

    def _leave_out(self, server_round: int, head: int, error: ProtocolError) -> None:
        size = len(self.groups[head])
        log.warning("Round %d: group %s is left out: %s", server_round, self.groups[head], error)
        self.fallbacks.append((server_round, f"a group of {size} is left out, it has no sum"))

    def _abandon(self, server_round: int) -> None:
        reason = "no group could be summed"
        log.warning("Round %d is abandoned: %s", server_round, reason)
        self.abandoned.append((server_round, reason))


def _expect_plain(inner: Strategy, groups: int) -> None:
    """Refuse what cannot take a group for a client, and have the others wait for groups."""
    for part in _within(inner):
        name = type(part).__name__
        expect_open(part)
        mod = str(getattr(part, "needs_mod", ""))
        expect(
            not mod, "inner", name, f"a rule without a mod ({mod}): groups answer training alone"
        )
        fewest = int(getattr(part, "min_train_nodes", 0))
        allowed = f"at most {groups}, the groups: each stands for a client"
        expect(fewest <= groups, "inner.min_train_nodes", fewest, allowed)
        if getattr(part, "min_available_nodes", 0) > groups:
            part.min_available_nodes = groups  # type: ignore[attr-defined]


def _within(strategy: Strategy) -> Iterator[Strategy]:
    """Yield a strategy and those that it wraps."""
    yield strategy
    for value in vars(strategy).values():
        if isinstance(value, Strategy):
            yield from _within(value)


def _to(node: int, message: Message) -> Message:
    data = message.metadata
    return Message(message.content, node, data.message_type, ttl=data.ttl, group_id=data.group_id)


def _update(head: int, begun: Begun, mean: Mean) -> Update:
    """Return a group's sum as one update, its mean, with the sum of the numbers of examples."""
    delta = difference(begun.model, begun.model)
    delta |= {name: np.asarray(d, begun.model[name].dtype) for name, d in mean.delta.items()}
    return Update(head, mean.weight, delta)
