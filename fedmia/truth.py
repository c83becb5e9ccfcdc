"""What only the evaluation knows: which node holds which shard, and who was a member."""

import json
from dataclasses import dataclass
from pathlib import Path

from fedmia.errors import ConfigError
from fedmia.split import Split


@dataclass(frozen=True)
class Truth:
    """Ground truth of a run, kept beside the transcript and never inside it.

    ``nodes`` maps node ids to client numbers; ``split`` says which records each client held.
    """

    nodes: dict[int, int]
    split: Split

    def save(self, run_dir: Path) -> None:
        """Write ``nodes.json`` and ``split.npz``."""
        (run_dir / "nodes.json").write_text(json.dumps({str(k): v for k, v in self.nodes.items()}))
        self.split.save(run_dir / "split.npz")

    @classmethod
    def load(cls, run_dir: Path) -> "Truth":
        """Read what :meth:`save` wrote.

        Raises
        ------
        ConfigError
            If a file is missing or broken.
        """
        file = run_dir / "nodes.json"
        try:
            nodes = {int(k): int(v) for k, v in json.loads(file.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{file}: expected which node is which client ({reason})") from None
        return cls(nodes, Split.load(run_dir / "split.npz"))
