"""What an experiment puts together at both sides: strategies in one another, mods, clients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.serverapp.strategy import Strategy
from torch import nn

from fedmia.secagg.identities import Identities


@dataclass(frozen=True)
class Stack:
    """What is put together.

    Parameters
    ----------
    strategy
        The outermost one.
    mods
        Around each client, outermost first, by their names in ``client.defenses``.
    weights
        Number of records of each client, shape (clients,).
    dropout
        Probability with which a client fails to answer a round.
    length
        Number of floating parameters of the model, which an update has.
    model
        With its initial weights, ``None`` if it is not known.
    input_shape
        Of a record, ``None`` if it is not known.
    """

    strategy: Strategy
    mods: Mapping[str, object]
    weights: Sequence[int]
    dropout: float = 0.0
    length: int = 1
    model: nn.Module | None = None
    input_shape: tuple[int, ...] | None = None

    @property
    def protocol(self) -> object:
        """The public parameters of the protocol that the strategy speaks, ``None`` without one."""
        return getattr(self.strategy, "protocol", None)

    @property
    def sampling(self) -> tuple[str, float, int] | None:
        """Key and value of what decides how many clients are asked in a round, and this number.

        ``None`` where the strategy does not say. One that draws clients by itself has an attribute
        ``asks``: the name of that setting, its value, and the number.
        """
        for path, strategy in wrapped(self.strategy):
            if asks := getattr(strategy, "asks", None):
                name, value, asked = asks
                return f"{path}.{name}", value, asked
            share = getattr(strategy, "fraction_train", None)
            if isinstance(share, int | float):
                fewest = int(getattr(strategy, "min_train_nodes", 0))
                asked = min(len(self.weights), max(int(len(self.weights) * share), fewest))
                return f"{path}.fraction_train", share, asked
        return None

    @property
    def sampled(self) -> int | None:
        """How many clients are asked in a round; ``None`` where the strategy does not say."""
        return self.sampling[2] if self.sampling else None

    @property
    def simulated(self) -> Iterator[tuple[str, Identities]]:
        """Identities that are derived and that clients sign with, with the keys of their mods."""
        if getattr(self.protocol, "malicious_server", False):
            for name, mod in self.mods.items():
                found = getattr(mod, "identities", None)
                if isinstance(found, Identities) and found.folder is None:
                    yield f"client.defenses.{name}.identities", found


def wrapped(strategy: Strategy, key: str = "strategy") -> Iterator[tuple[str, Strategy]]:
    """Yield a strategy and those that it wraps, outer ones first, with their keys."""
    yield key, strategy
    for name, value in vars(strategy).items():
        if isinstance(value, Strategy):
            yield from wrapped(value, f"{key}.{name}")


def evaluations(stack: Stack) -> list[tuple[str, float]]:
    """Return what has clients evaluate: key and share."""
    parts = wrapped(stack.strategy)
    shares = [(f"{k}.fraction_evaluate", getattr(s, "fraction_evaluate", 0.0)) for k, s in parts]
    return [(key, share) for key, share in shares if share]
