"""The settings of the noise under the mask, before the size of the model is known."""

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from fedmia.errors import expect
from fedmia.secagg.distributed_noise import DistributedNoise, Mechanism

NONE = "none"
_MECHANISMS = (NONE, "discrete_gaussian", "skellam")


@dataclass(frozen=True)
class Noise:
    """What each client adds under its mask.

    Parameters
    ----------
    mechanism
        ``none``, ``discrete_gaussian`` or ``skellam``.
    clip
        Bound of a client's update in L2 norm.
    noise_multiplier
        Standard deviation of the noise of the sum, in units of ``clip``.
    bits
        Of one coordinate of the sum, at most those of a word.
    min_survivors
        With how many honest clients the sum has its full noise. It is opened only if so many
        survive beside all who may collude. ``None`` takes those that are left of the fewest the
        masks open for (:attr:`fedmia.secagg.protocol.Protocol.honest_shares`).
    delta
        δ at which ε is stated.
    """

    mechanism: str = NONE
    clip: float = 1.0
    noise_multiplier: float = 1.0
    bits: int = 24
    min_survivors: int | None = None
    delta: float = 1e-5

    def __post_init__(self) -> None:
        allowed = f"one of {', '.join(_MECHANISMS)}"
        expect(self.mechanism in _MECHANISMS, "mechanism", self.mechanism, allowed)
        expect(2 <= self.bits <= 32, "bits", self.bits, "in 2..32")
        few = self.min_survivors
        expect(few is None or few >= 1, "min_survivors", few, "null or at least 1")
        expect(0 < self.delta < 1, "delta", self.delta, "in (0, 1)")
        if self.mechanism != NONE:
            self.of(max(2, self.min_survivors or 0), self.min_survivors or 1, 1)

    def __bool__(self) -> bool:
        return self.mechanism != NONE

    def of(self, cohort: int, honest: int, length: int) -> DistributedNoise:
        """Return the mechanism for updates of so many coordinates.

        Parameters
        ----------
        cohort
            Most clients that are summed.
        honest
            Fewest honest clients in a sum that is opened.
        length
            Coordinates of an update.
        """
        return _mechanism(self, cohort, honest, length)


@lru_cache(maxsize=8)
def _mechanism(noise: Noise, cohort: int, honest: int, length: int) -> DistributedNoise:
    return DistributedNoise(
        mechanism=cast(Mechanism, noise.mechanism),
        clip=noise.clip,
        noise_multiplier=noise.noise_multiplier,
        bits=noise.bits,
        cohort=cohort,
        min_survivors=honest,
        length=length,
    )
