"""Per-candidate statistics of a transcript, computed once and cached beside it."""

from fedmia.signals.statistics import Signals

__all__ = ["Signals"]
