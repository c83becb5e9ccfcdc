"""Cosine transform: the low frequencies of an update are sent, with noise.

A rotation alone protects nothing: noise of one size in all directions is the same noise before and
after an orthonormal transform. What changes the update is that high frequencies are cut off, or
noise that is larger in some bands than in others. No paper is followed to the letter; the DCT is
that of N. Ahmed, T. Natarajan, K. R. Rao, "Discrete Cosine Transform", IEEE Trans. Comput. 1974.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from flwr.app import Context, Message

from clients.defenses.compression import Float32, Update, drawn, expect_share, replaced
from clients.defenses.hiding import Handler
from clients.payloads import spectrum
from fedmia.errors import expect
from fedmia.signals.lenses import Lens, LowFrequencies, lowest

ISOTROPIC, BANDS = "isotropic", "bands"


@dataclass(frozen=True)
class DctPerturbation:
    """Sends of every array, flattened, the lowest DCT coefficients with Gaussian noise.

    No ε is claimed: the update is not clipped, and noise in bands depends on it.

    Parameters
    ----------
    share
        ρ, of each array's coefficients, rounded up, that are sent.
    noise_std
        σ, the standard deviation of the noise of a coefficient.
    noise
        ``isotropic``: σ for all; ``bands``: in each band σ times the root mean square of its
        coefficients over that of all that are sent. Both add the same energy on average.
    bands
        Of nearly equal width, from the lowest frequency up, in each array.
    seed
        Of the noise, which differs from client to client and from round to round.
    """

    share: float = 0.5
    noise_std: float = 0.001
    noise: str = ISOTROPIC
    bands: int = 8
    seed: int = 0
    changes_updates: ClassVar = True

    def __post_init__(self) -> None:
        expect_share(self.share)
        std = self.noise_std
        expect(0 <= std < math.inf, "noise_std", std, "at least 0 and finite")
        kinds = (ISOTROPIC, BANDS)
        expect(self.noise in kinds, "noise", self.noise, f"{ISOTROPIC} or {BANDS}")
        expect(self.bands >= 1, "bands", self.bands, "at least 1")

    @property
    def lens(self) -> Lens:
        """What an adversary looks at that knows the mod."""
        return LowFrequencies(self.share)

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer with the perturbed update; pass on what is no answer to ``train``."""
        rng = drawn(self.seed, "dct perturbation", message, context)
        return replaced(message, context, call_next, partial(self._sent, rng=rng))

    def perturbed(self, update: Update, rng: np.random.Generator) -> Update:
        """Return what is sent in an update's place, with this noise."""
        return self._sent(update, rng)[0]

    def _sent(self, update: Update, rng: np.random.Generator) -> tuple[Update, int]:
        found: Update = {}
        size = 0
        for name, values in update.items():
            flat = values.astype(np.float32, copy=False).reshape(-1)
            kept = spectrum.transform(flat, lowest(flat.size, self.share))
            if self.noise_std:
                noise = rng.standard_normal(len(kept), dtype=np.float32)
                noise *= self._scales(kept)
                kept += noise
            payload = spectrum.encode(kept)
            found[name] = spectrum.decode(payload, flat.size).reshape(values.shape)
            size += len(payload)
        return found, size

    def _scales(self, kept: Float32) -> Float32 | float:
        """Return the standard deviation of the noise of each coefficient, (kept,), or of all."""
        if self.noise == ISOTROPIC:
            return self.noise_std
        energy = np.square(kept, dtype=np.float64)
        mean, scales = energy.mean(), np.full(len(kept), self.noise_std, np.float32)
        start = 0
        for part in np.array_split(energy, self.bands) if mean else ():
            if part.size:
                scales[start : start + part.size] *= math.sqrt(part.mean() / mean)
                start += part.size
        return scales
