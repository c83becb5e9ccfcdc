"""Where log lines go during a run: into its ``run.log``, never between table and progress bar."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOISY = ("flwr", "ray", "matplotlib")


def quiet() -> None:
    """Take Flower's and Ray's own handlers away; lines still reach the root logger."""
    logging.captureWarnings(capture=True)
    warnings.simplefilter("default")
    for name in _NOISY:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.INFO)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Send log lines of level INFO and above to a file, besides wherever they go already."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
