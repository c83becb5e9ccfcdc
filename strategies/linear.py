"""Which aggregation rules need nothing but the weighted mean of the updates."""

from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedYogi,
    Strategy,
)

_LINEAR = frozenset({FedAvg, FedAvgM, FedProx, FedAdagrad, FedAdam, FedYogi})


def is_linear(strategy: Strategy) -> bool:
    """Whether a strategy is linear in the updates: one of Flower's, or one that says so.

    A strategy of one's own sets the attribute ``linear = True``. Subclasses are not taken on
    trust: most robust rules of Flower derive from ``FedAvg``.
    """
    return type(strategy) in _LINEAR or bool(getattr(strategy, "linear", False))
