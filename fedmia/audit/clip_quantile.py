"""Whether an adaptive clip went where it is meant to go, told from the noisy shares it follows.

G. Andrew, O. Thakkar, H. B. McMahan, S. Ramaswamy, Differentially Private Learning with Adaptive
Clipping, NeurIPS 2021 (arXiv 1905.03871). One that moves the wrong way keeps its ε, and ruins the
model or the noise: no attack tells.
"""

import math
from collections.abc import Sequence

_FEWEST = 10
"""Rounds from which something can be said."""

_SLACK = 0.25
"""How far from the quantile the shares of a clip that follows it may be on average."""


def clip_followed(shares: Sequence[float], quantile: float, noise: float) -> str | None:
    """Return the line that says that a clip does not follow its quantile, ``None`` if it does.

    Of the last half of the rounds, at least 10; with fewer rounds nothing is said.

    Parameters
    ----------
    shares
        Noisy share of updates within the clip, by round.
    quantile
        The share aimed at.
    noise
        Standard deviation of the noise of a share.
    """
    if len(shares) < _FEWEST:
        return None
    last = shares[-max(_FEWEST, len(shares) // 2) :]
    mean = math.fsum(last) / len(last)
    if abs(mean - quantile) <= _SLACK + 2 * noise / math.sqrt(len(last)):
        return None
    return (
        f"adaptive clip: {mean:.0%} of updates were within the clip over the last {len(last)} "
        f"rounds, the target is {quantile:.0%}: it does not follow the quantile (or training was "
        "too short)"
    )
