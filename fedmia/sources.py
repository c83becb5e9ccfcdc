"""Which client holds a record: how often an attack's highest-scoring target is its owner.

Hu, Salcic, Sun, Dobbie and Zhang, "Source inference attacks in federated learning", ICDM 2021
(arXiv 2109.05659), for any membership score: the source of a known training record is the target
under which it scores highest.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm


def source_accuracy(scores: ArrayLike, owner: ArrayLike) -> float:
    """Return the share of members that score highest in their own row.

    A record that shares its highest score among r rows, its own one of them, counts 1/r.

    Parameters
    ----------
    scores
        Shape (K, n): target k's score of candidate j.
    owner
        Shape (n,): the row whose client trained on the record; negative elsewhere, left out.

    Raises
    ------
    ValueError
        If there are no members.
    """
    s, own = np.asarray(scores, dtype=np.float64), np.asarray(owner)
    members = np.flatnonzero(own >= 0)
    if not members.size:
        raise ValueError("0 members: expected at least one")
    best = s[:, members] == s[:, members].max(axis=0)
    return float((best[own[members], np.arange(members.size)] / best.sum(axis=0)).mean())


def blind_source_accuracy(labels: ArrayLike, owner: ArrayLike) -> float | None:
    """Return the source accuracy of the class histograms alone, ``None`` with fewer than 2 clients.

    A record is given to the client that holds most members of its label. An oracle: it reads the
    true histograms, the record itself included; exactly one over the clients where they are equal.

    Parameters
    ----------
    labels, owner
        Shape (n,); ``owner`` as in :func:`source_accuracy`.
    """
    own = np.asarray(owner)
    held = own >= 0
    if not held.any() or own.max() < 1:
        return None
    _, code = np.unique(labels, return_inverse=True)
    counts = np.zeros((int(own.max()) + 1, int(code.max()) + 1))
    np.add.at(counts, (own[held], code[held]), 1)
    return source_accuracy(counts[:, code], own)


def wilson_interval(share: float, trials: int, confidence: float) -> list[float]:
    """Return the score interval of a binomial share (Wilson, JASA 1927); it may be a fraction."""
    z2 = norm.ppf((1 + confidence) / 2) ** 2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return [float(max(0.0, centre - half)), float(min(1.0, centre + half))]
