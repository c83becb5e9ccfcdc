"""What the parties to a sum agree on: how updates become integers, how few may be summed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from fedmia.errors import expect
from fedmia.records import Params
from fedmia.secagg.codec import Codec, Mean, Words, flatten
from fedmia.secagg.errors import ProtocolError


@dataclass(frozen=True)
class Cohort:
    """The public parameters of a sum without masks between clients.

    Parameters
    ----------
    cohort
        Most clients of a round.
    min_clients
        Fewest clients whose sum may be read.
    clip, bits, max_weight, metric_range, modulus_bits
        See :class:`fedmia.secagg.codec.Codec`.
    """

    cohort: int
    min_clients: int = 3
    clip: float = 1.0
    bits: int = 16
    max_weight: int = 1000
    metric_range: float = 100.0
    modulus_bits: int | None = None

    def __post_init__(self) -> None:
        expect(self.cohort >= 3, "cohort", self.cohort, "at least 3 clients for a sum of others")
        fewest, allowed = self.min_clients, f"in 2..{self.cohort}, at most cohort"
        expect(2 <= fewest <= self.cohort, "min_clients", fewest, allowed)
        _ = self.codec

    @cached_property
    def codec(self) -> Codec:
        """How updates become integers."""
        return Codec(
            self.cohort,
            self.clip,
            self.bits,
            self.max_weight,
            self.metric_range,
            self.modulus_bits,
        )

    def length(self, like: Params, names: Sequence[str]) -> int:
        """Return how many words a client sends of a model and of so many metrics."""
        return self.codec.length(len(flatten(like)), len(names))

    def expect_enough(self, clients: int) -> None:
        """Raise ``ProtocolError`` if the sum would be of too few."""
        fewest = self.min_clients
        if clients < fewest:
            raise ProtocolError(f"{clients} clients are left: expected min_clients={fewest}")

    def decode(self, total: Words, like: Params, names: Sequence[str], clients: int) -> Mean:
        """Return the mean that the sum of so many clients' words stands for."""
        return self.codec.decode(total, like, names, clients)
