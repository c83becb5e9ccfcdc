"""The transcript on disk: one safetensors file a round, complete or not there at all.

``meta.json`` names the vantage, what it shows and which defence hides updates from it.
``round_00001.safetensors`` holds ``params/<name>`` and, where the vantage shows them,
``updates/<name>`` of shape (clients, *shape) and ``masked`` of shape (clients, words); node ids
and example counts stand in the file's metadata.
``final.safetensors`` holds the model after the last round. Files appear by an atomic rename,
so a run that dies leaves all its complete rounds behind.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedmia.records import (
    Capability,
    MaskedInput,
    Observation,
    Params,
    Update,
    difference,
    implied,
)

SCHEMA = 1
_FINAL_FACTS = frozenset({"names"})
_ROUND_FACTS = frozenset({"round", "recipients", "node_ids", "num_examples", "names"})
View = Callable[[Observation], Observation | None]


class TranscriptError(ValueError):
    """A transcript cannot be read; the text names the file and what is wrong with it."""


class TranscriptWriter:
    """Append observations to a new transcript folder.

    Parameters
    ----------
    path
        The folder, made if need be.
    vantage, shows, hides_updates
        Where the observations are made, see :class:`fedmia.vantages.Vantage`.

    Raises
    ------
    TranscriptError
        If the folder already holds a transcript.
    """

    def __init__(
        self, path: Path, vantage: str, shows: Iterable[Capability], hides_updates: str = ""
    ) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        if (path / "meta.json").exists():
            raise TranscriptError(f"{path}: already holds a transcript")
        meta = {
            "schema": SCHEMA,
            "vantage": vantage,
            "shows": sorted(c.name for c in shows),
            "hides_updates": hides_updates,
        }
        partial = path / "meta.json.partial"
        partial.write_text(json.dumps(meta, indent=2))
        partial.replace(path / "meta.json")

    def append(self, observation: Observation) -> None:
        """Write one complete round."""
        updates = observation.updates
        arrays = {f"params/{k}": np.asarray(v) for k, v in observation.params.items()}
        if updates:
            for name in updates[0].delta:
                arrays[f"updates/{name}"] = np.stack([u.delta[name] for u in updates])
        if observation.masked:
            arrays["masked"] = np.stack([m.words for m in observation.masked])
        metadata = {
            "round": observation.round,
            "recipients": observation.recipients,
            "node_ids": [u.node_id for u in updates],
            "num_examples": [u.num_examples for u in updates],
            "masked": [m.node_id for m in observation.masked],
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
            {k: np.asarray(v, order="C") for k, v in arrays.items()},
            partial,
            metadata={k: json.dumps(v) for k, v in metadata.items()},
        )
        partial.replace(self.path / name)


class Transcript(Sequence[Observation]):
    """The complete rounds of a run, in order, read from disk when asked for.

    ``damaged`` names files that could not be read; the sequence holds the others.
    ``shows`` is what the recording vantage could see at all; ``hides_updates`` names the defence
    that hid updates from it, if one did.

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
            self.hides_updates = str(meta.get("hides_updates", ""))
        except FileNotFoundError:
            raise TranscriptError(f"{path}: no transcript here (meta.json is missing)") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TranscriptError(f"{path / 'meta.json'}: corrupt ({_line(error)})") from None
        if meta.get("schema") != SCHEMA:
            raise TranscriptError(
                f"{path / 'meta.json'}: schema {meta.get('schema')}, expected {SCHEMA}"
            )
        self._view: View | None = None
        self.damaged: tuple[str, ...] = ()
        self._files: tuple[Path, ...] = ()
        self._final = path / "final.safetensors"
        self.refresh()

    def refresh(self) -> None:
        """Look again for rounds, e.g. while the run that writes them goes on."""
        files: list[Path] = []
        damaged: list[str] = []
        for file in _round_files(self.path):
            if fault := _fault(file, _ROUND_FACTS):
                damaged.append(f"{file.name}: {fault}")
            else:
                files.append(file)
        if self._final.exists() and (fault := _fault(self._final, _FINAL_FACTS)):
            damaged.append(f"{self._final.name}: {fault}")
        self.damaged = tuple(damaged)
        self._files = tuple(f for f in files if self._seen(f))

    def through(
        self, vantage: str, shows: Iterable[Capability], view: View, hides_updates: str = ""
    ) -> "Transcript":
        """Return the same transcript as a vantage that sees less would have recorded it."""
        narrowed = Transcript.__new__(Transcript)
        narrowed.__dict__.update(self.__dict__)
        narrowed.vantage, narrowed.shows = vantage, implied(self.shows) & frozenset(shows)
        narrowed.hides_updates, narrowed._view = hides_updates, view
        narrowed._files = tuple(f for f in self._files if narrowed._seen(f))
        return narrowed

    @property
    def final(self) -> Params | None:
        """The model after the last round, if this vantage sees it and the run came that far."""
        if not self._final.exists() or _fault(self._final, _FINAL_FACTS):
            return None
        params = _read(self._final, "params/")
        if self._view is None:
            return params
        seen = self._view(Observation(round=0, params=params, recipients=()))
        return seen.params if seen else None

    @property
    def node_ids(self) -> tuple[int, ...]:
        """Every node whose update was seen at least once, in ascending order."""
        if Capability.CLIENT_UPDATES not in self.shows:
            return ()
        seen = (self._seen(file) for file in self._files)
        return tuple(sorted({update.node_id for s in seen if s for update in s.updates}))

    @property
    def rounds(self) -> tuple[int, ...]:
        """The numbers of the complete rounds seen."""
        return tuple(int(f.stem.removeprefix("round_")) for f in self._files)

    @property
    def summed(self) -> tuple[bool, ...]:
        """Of each round, whether the model that came of it is seen too, and so the aggregate."""
        return tuple(self._followed(index) for index in range(len(self)))

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
        return replace(observation, aggregate=difference(following, observation.params))

    def _observation(self, file: Path) -> Observation:
        metadata = _metadata(file)
        stacked = _read(file, "updates/")
        senders = metadata.get("masked", [])
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
            masked=tuple(map(MaskedInput, senders, _masked(file))) if senders else (),
        )
        seen = self._view(observation) if self._view else observation
        if seen is None:
            raise TranscriptError(f"{file}: not visible from vantage '{self.vantage}'")
        return seen

    def _followed(self, index: int) -> bool:
        if index + 1 < len(self):
            return self.rounds[index + 1] == self.rounds[index] + 1
        return _round_files(self.path)[-1] == self._files[index] and self.final is not None

    def _next_params(self, index: int) -> Params | None:
        if not self._followed(index):
            return None
        return _read(self._files[index + 1], "params/") if index + 1 < len(self) else self.final

    def _seen(self, file: Path) -> Observation | None:
        """Return what this vantage sees of a round, without the arrays."""
        metadata = _metadata(file)
        updates = tuple(Update(n, 0, {}) for n in metadata["node_ids"])
        probe = Observation(metadata["round"], {}, tuple(metadata["recipients"]), updates)
        return self._view(probe) if self._view else probe


def _round_files(path: Path) -> list[Path]:
    return sorted(f for f in path.glob("round_*.safetensors") if f.stem[6:].isdecimal())


def _metadata(file: Path) -> dict[str, Any]:
    with safe_open(file, framework="np") as tensors:
        return {k: json.loads(v) for k, v in (tensors.metadata() or {}).items()}


def _read(file: Path, prefix: str) -> dict[str, Any]:
    with safe_open(file, framework="np") as tensors:
        stored = set(tensors.keys())
        names = json.loads(tensors.metadata()["names"])
        return {k: tensors.get_tensor(prefix + k) for k in names if prefix + k in stored}


def _masked(file: Path) -> NDArray[Any]:
    with safe_open(file, framework="np") as tensors:
        return np.asarray(tensors.get_tensor("masked"))


def _fault(file: Path, facts: frozenset[str]) -> str:
    try:
        missing = facts - _metadata(file).keys()
    except (SafetensorError, OSError, ValueError) as error:
        return f"corrupt or incomplete ({_line(error)})"
    return f"corrupt ({', '.join(sorted(missing))} missing)" if missing else ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
