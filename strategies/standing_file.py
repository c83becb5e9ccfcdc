"""The standings of clients on disk, so that reputations outlive the server."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedmia.errors import ConfigError, expect
from strategies.standing import Standing

_KIND = "fedmia standings 1"


def expect_writable(path: Path) -> None:
    """Raise ``ConfigError`` if a file cannot be there; nothing is written."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    fits = os.access(there, os.W_OK) and there.is_dir() == (there != path.absolute())
    expect(fits, "state_file", path, f"a writable file ({there} is in the way)")


def write(path: Path, standings: Mapping[int, Standing]) -> None:
    """Write a file wholly, or not at all.

    Raises
    ------
    ConfigError
        In one line, why it cannot be written.
    """
    histories = [s.history for s in standings.values() if s.history is not None]
    clients = [
        {
            "node": node,
            "reputation": s.reputation,
            "judged": s.judged,
            "isolated": s.isolated,
            "wait": s.wait,
            "history": s.history is not None,
        }
        for node, s in standings.items()
    ]
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"histories": np.stack(histories) if histories else np.zeros((0, 0), np.float32)}
        save_file(tensors, draft, metadata={"kind": _KIND, "clients": json.dumps(clients)})
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"state_file={path}: expected a writable file ({reason})") from None
    finally:
        draft.unlink(missing_ok=True)


def read(path: Path) -> dict[int, Standing]:
    """Return the standings by node id.

    Raises
    ------
    ConfigError
        In one line, if the file is damaged or another program's.
    """
    try:
        with safe_open(path, "numpy") as file:
            facts = file.metadata() or {}
            if facts.get("kind") != _KIND:
                raise ValueError(f"kind {facts.get('kind')}")
            histories = iter(file.get_tensor("histories"))
        return {
            entry["node"]: _standing(entry, histories) for entry in json.loads(facts["clients"])
        }
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, StopIteration) as error:
        reason = " ".join(str(error).split()) or "too few histories"
        allowed = "reputations that this strategy wrote, or no file yet"
        raise ConfigError(f"state_file={path}: expected {allowed} ({reason})") from None


def _standing(entry: Mapping[str, Any], histories: Any) -> Standing:
    """Return one client's standing, its history the next of ``histories``."""
    standing = Standing(
        reputation=float(entry["reputation"]),
        judged=int(entry["judged"]),
        isolated=bool(entry["isolated"]),
        wait=None if entry["wait"] is None else int(entry["wait"]),
        history=np.array(next(histories), np.float32) if entry["history"] else None,
    )
    whole = standing.history is None or bool(np.isfinite(standing.history).all())
    if not (0 <= standing.reputation <= 1 and standing.judged >= 0 and whole):
        raise ValueError(f"node {entry['node']} is out of range")
    return standing
