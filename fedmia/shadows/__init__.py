"""Training by the federation's recipe on the adversary's own records, many models at once."""

from fedmia.shadows.training import ShadowTraining

__all__ = ["ShadowTraining"]
