from dataclasses import dataclass
from pathlib import Path

SMALL = [
    "num_rounds=2",
    "num_clients=4",
    "candidates.nonmembers=50",
    "metrics.bootstrap=100",
    "partition.samples_per_client=10",
    "pool=serial",
]


@dataclass(frozen=True)
class Ended:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def folder(self):
        """The path printed on the last line."""
        return Path(self.out.splitlines()[-1])
