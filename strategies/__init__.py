"""Server side: aggregation rules and wrappers, each a Flower ``Strategy``."""
