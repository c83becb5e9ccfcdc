"""fedmia: measure how much a federated-learning system leaks about who was in it."""

__version__ = "0.1.0"
