"""The transcript on disk: one safetensors file a round, complete or not there at all.

``meta.json`` names the vantage and what it shows. ``round_00001.safetensors`` holds
``params/<name>`` and, where the vantage shows them, ``updates/<name>`` of shape
(clients, *shape); node ids and example counts stand in the file's metadata.
``final.safetensors`` holds the model after the last round. Files appear by an atomic rename,
so a run that dies leaves all its complete rounds behind.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedmia.records import Capability, Observation, Params, Update

SCHEMA = 1
View = Callable[[Observation], Observation | None]


class TranscriptError(ValueError):
    """A transcript cannot be read; the text names the file and what is wrong with it."""


class TranscriptWriter:
    """Append observations to a new transcript folder.

    Raises
    ------
    TranscriptError
        If the folder already holds a transcript.
    """

    def __init__(self, path: Path, vantage: str, shows: Iterable[Capability]) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        if (path / "meta.json").exists():
            raise TranscriptError(f"{path}: already holds a transcript")
        meta = {"schema": SCHEMA, "vantage": vantage, "shows": sorted(c.name for c in shows)}
        (path / "meta.json").write_text(json.dumps(meta, indent=2))

    def append(self, observation: Observation) -> None:
        """Write one complete round."""
        updates = observation.updates
        arrays = {f"params/{k}": np.asarray(v) for k, v in observation.params.items()}
        if updates:
            for name in updates[0].delta:
                arrays[f"updates/{name}"] = np.stack([u.delta[name] for u in updates])
        metadata = {
            "round": observation.round,
            "recipients": observation.recipients,
            "node_ids": [u.node_id for u in updates],
            "num_examples": [u.num_examples for u in updates],
            "names": list(observation.params),
        }
        self._write(f"round_{observation.round:05d}.safetensors", arrays, metadata)

    def finish(self, params: Params) -> None:
        """Write the model after the last round."""
        arrays = {f"params/{k}": np.asarray(v) for k, v in params.items()}
        self._write("final.safetensors", arrays, {"names": list(params)})

    def _write(self, name: str, arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
        partial = self.path / f"{name}.partial"
        save_file(
            {k: np.ascontiguousarray(v) for k, v in arrays.items()},
            partial,
            metadata={k: json.dumps(v) for k, v in metadata.items()},
        )
        partial.replace(self.path / name)


class Transcript(Sequence[Observation]):
    """The complete rounds of a run, in order, read from disk when asked for.

    ``damaged`` names files that could not be read; the sequence holds the others.
    ``shows`` is what the recording vantage could see at all.

    Raises
    ------
    TranscriptError
        If the folder holds no transcript.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            meta = json.loads((path / "meta.json").read_text())
            self.vantage: str = meta["vantage"]
            self.shows = frozenset(Capability[name] for name in meta["shows"])
        except FileNotFoundError:
            raise TranscriptError(f"{path}: no transcript here (meta.json is missing)") from None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise TranscriptError(f"{path / 'meta.json'}: corrupt ({error})") from None
        self._view: View | None = None
        self.damaged: tuple[str, ...] = ()
        self._files: tuple[Path, ...] = ()
        self._final = path / "final.safetensors"
        self.refresh()

    def refresh(self) -> None:
        """Look again for rounds, e.g. while the run that writes them goes on."""
        files: list[Path] = []
        damaged: list[Path] = []
        for file in sorted(self.path.glob("round_*.safetensors")):
            (damaged if _fault(file) else files).append(file)
        damaged += [f for f in [self._final] if f.exists() and _fault(f)]
        self.damaged = tuple(f"{f.name}: {_fault(f)}" for f in damaged)
        self._files = tuple(f for f in files if self._visible(f))

    def through(self, vantage: str, shows: Iterable[Capability], view: View) -> "Transcript":
        """Return the same transcript as a vantage that sees less would have recorded it."""
        narrowed = Transcript.__new__(Transcript)
        narrowed.__dict__.update(self.__dict__)
        narrowed.vantage, narrowed.shows = vantage, self.shows & frozenset(shows)
        narrowed._view = view
        narrowed._files = tuple(f for f in self._files if narrowed._visible(f))
        return narrowed

    @property
    def final(self) -> Params | None:
        """The model after the last round, if this vantage sees it and the run came that far."""
        if not self._final.exists() or _fault(self._final):
            return None
        params = _read(self._final, "params/")
        if self._view is None:
            return params
        seen = self._view(Observation(round=0, params=params, recipients=()))
        return seen.params if seen else None

    @property
    def node_ids(self) -> tuple[int, ...]:
        """Every node whose update was seen at least once, in ascending order."""
        return tuple(sorted({n for f in self._files for n in self._metadata(f)["node_ids"]}))

    @property
    def rounds(self) -> tuple[int, ...]:
        """The numbers of the complete rounds seen."""
        return tuple(int(f.stem.removeprefix("round_")) for f in self._files)

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> Observation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Observation]: ...
    def __getitem__(self, index: int | slice) -> Observation | Sequence[Observation]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        file = self._files[index]
        observation = self._observation(file)
        following = self._next_params(index)
        if following is None:
            return observation
        aggregate = {k: following[k] - v for k, v in observation.params.items()}
        return Observation(
            observation.round,
            observation.params,
            observation.recipients,
            observation.updates,
            aggregate,
        )

    def _observation(self, file: Path) -> Observation:
        metadata = self._metadata(file)
        stacked = _read(file, "updates/")
        observation = Observation(
            round=metadata["round"],
            params=_read(file, "params/"),
            recipients=tuple(metadata["recipients"]),
            updates=tuple(
                Update(node_id, num_examples, {k: v[i] for k, v in stacked.items()})
                for i, (node_id, num_examples) in enumerate(
                    zip(metadata["node_ids"], metadata["num_examples"], strict=True)
                )
            ),
        )
        seen = self._view(observation) if self._view else observation
        if seen is None:
            raise TranscriptError(f"{file}: not visible from vantage '{self.vantage}'")
        return seen

    def _next_params(self, index: int) -> Params | None:
        round_ = self.rounds[index]
        if index + 1 < len(self):
            following = self._files[index + 1]
            return _read(following, "params/") if self.rounds[index + 1] == round_ + 1 else None
        last_on_disk = max(self.path.glob("round_*.safetensors"), default=None)
        return self.final if last_on_disk == self._files[index] else None

    def _visible(self, file: Path) -> bool:
        if self._view is None:
            return True
        metadata = self._metadata(file)
        probe = Observation(metadata["round"], {}, tuple(metadata["recipients"]))
        return self._view(probe) is not None

    def _metadata(self, file: Path) -> dict[str, Any]:
        with safe_open(file, framework="np") as tensors:
            return {k: json.loads(v) for k, v in (tensors.metadata() or {}).items()}


def _read(file: Path, prefix: str) -> dict[str, Any]:
    with safe_open(file, framework="np") as tensors:
        stored = set(tensors.keys())
        names = json.loads(tensors.metadata()["names"])
        return {k: tensors.get_tensor(prefix + k) for k in names if prefix + k in stored}


def _fault(file: Path) -> str:
    try:
        with safe_open(file, framework="np"):
            return ""
    except (SafetensorError, OSError) as error:
        return f"corrupt or incomplete ({error})"
