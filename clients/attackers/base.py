"""What attacking clients share: who attacks, from which round, and how another update is sent.

Attackers stand outside of the defences and inside of what hides updates: a client that attacks
keeps to no defence of its own, and what it sends is masked or encrypted like any other.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Context, Message
from numpy.typing import NDArray

from clients.defenses.hiding import Handler, one_model
from clients.defenses.updates import round_of
from fedmia.arrays import to_record
from fedmia.errors import expect
from fedmia.records import Params

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Attacker(ABC):
    """A mod that leaves honest clients alone and answers ``train`` messages for the others.

    Parameters
    ----------
    clients
        The numbers of those who attack; none where ``fraction`` says how many.
    fraction
        So many of all clients attack, rounded to the nearest number: the last ones. ``None`` where
        ``clients`` names them. With 0 nobody does.
    num_clients
        All clients of the federation.
    from_round
        The first round in which they attack; before it they are honest.

    Raises
    ------
    ConfigError
        If it is not settled who attacks, a client does not exist, or no honest one is left.
    """

    clients: Sequence[int] = ()
    fraction: float | None = 0.2
    num_clients: int = 10
    from_round: int = 1

    def __post_init__(self) -> None:
        self.attackers(self.num_clients)
        expect(self.from_round >= 1, "from_round", self.from_round, "at least 1")

    @property
    def omniscient(self) -> bool:
        """Whether what attackers send depends on the records of honest clients."""
        return False

    def attackers(self, num_clients: int) -> frozenset[int]:
        """Return the numbers of the clients that attack: ground truth, for evaluation alone.

        Raises
        ------
        ConfigError
            As the constructor, for so many clients.
        """
        named, share, last = list(self.clients), self.fraction, num_clients - 1
        if share is None:
            expect(len(named) > 0, "clients", named, "numbers of clients beside fraction=null")
            there = all(0 <= k <= last for k in named)
            expect(there, "clients", named, f"numbers from 0 to {last} (num_clients={num_clients})")
            expect(len(set(named)) == len(named), "clients", named, "each client once")
            allowed = f"at most {last} of them, so that one of num_clients={num_clients} is honest"
            expect(len(named) <= last, "clients", named, allowed)
            return frozenset(named)
        expect(not named, "clients", named, f"[] beside fraction={share}, or fraction=null")
        expect(0 <= share < 1, "fraction", share, "null or in [0, 1)")
        count = math.floor(share * num_clients + 0.5)
        allowed = "0, or so much that of num_clients={} at least one attacks and one does not"
        fits = share == 0 or 1 <= count <= last
        expect(fits, "fraction", share, allowed.format(num_clients))
        return frozenset(range(num_clients - count, num_clients))

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer for those who attack; pass on what others are asked, and all but ``train``."""
        trains = message.metadata.message_type.split(".")[0] == "train"
        if not trains or round_of(message) < self.from_round:
            return call_next(message, context)
        if client_of(context) not in self.attackers(self.num_clients):
            return call_next(message, context)
        return self.attack(message, context, call_next)

    @abstractmethod
    def attack(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Return an attacker's answer to a ``train`` message."""


@dataclass(frozen=True)
class Scene:
    """What an attacker knows when it forges an update.

    Parameters
    ----------
    message
        What it was asked.
    context
        Its own.
    train
        What answers honestly.
    sent
        The model in the message.
    """

    message: Message
    context: Context
    train: Handler
    sent: Params

    @property
    def client(self) -> int:
        """The attacker's number."""
        return client_of(self.context)

    @property
    def server_round(self) -> int:
        """The round that the message states."""
        return round_of(self.message)

    def change(self, reply: Message) -> Vector:
        """Return the update in an answer, its floating arrays in the model's order: (d,)."""
        after = one_model(reply)
        with np.errstate(all="ignore"):  # training may have diverged
            parts = [np.subtract(after[k], self.sent[k], dtype=np.float64) for k in self.floating]
        return np.concatenate([part.reshape(-1) for part in parts])

    def moved(self, reply: Message, change: Vector) -> Params:
        """Return the sent model moved by (d,); what is not floating is as in the answer."""
        params: dict[str, NDArray[Any]] = dict(one_model(reply))
        start = 0
        for name in self.floating:
            before = self.sent[name]
            part = change[start : start + before.size].reshape(before.shape)
            with np.errstate(all="ignore"):
                params[name] = (before + part).astype(before.dtype)
            start += before.size
        return params

    @property
    def floating(self) -> list[str]:
        """Names of the floating arrays."""
        return [name for name, value in self.sent.items() if value.dtype.kind == "f"]


@dataclass(frozen=True, kw_only=True)
class Forger(Attacker):
    """Answers as an honest client does, with another update in its place.

    What it states beside the update, its number of examples and its loss, stays as it was.
    """

    def attack(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Have the message answered honestly, and change the model in the answer."""
        scene = Scene(message, context, call_next, one_model(message))
        reply = call_next(message, context)
        if not reply.has_error():
            (name,) = reply.content.array_records
            forged = self.forge(scene.change(reply), scene)
            reply.content[name] = to_record(scene.moved(reply, forged))
        return reply

    @abstractmethod
    def forge(self, update: Vector, scene: Scene) -> Vector:
        """Return what is sent in place of an update, (d,)."""


def client_of(context: Context) -> int:
    """Return the number of the client that a context belongs to."""
    return int(context.node_config["partition-id"])
