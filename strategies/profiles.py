"""What a server remembers in order to describe the next update of each client."""

import numpy as np

from fedmia.records import Params
from fedmia.update_features import Float32, Float64, Profile


class Profiles:
    """Features of updates, as they come in.

    Memory: two sketches of the model, and one of the last update of each client
    (``sketch_size`` float32: 14 kB for 85,000 parameters in six arrays), whatever d.
    """

    def __init__(self) -> None:
        self.profile: Profile | None = None
        self._model: Float32 | None = None
        self._aggregate: Float32 | None = None
        self._last: dict[int, Float32] = {}

    def begin(self, model: Params) -> Profile:
        """Learn of the model of a round; it tells what became of the updates before."""
        if self.profile is None:
            self.profile = Profile(model)
        seen = self.profile.sketch(self.profile.flat(model))
        if self._model is not None and (change := seen - self._model).any():
            self._aggregate = change
        self._model = seen
        return self.profile

    @property
    def settled(self) -> bool:
        """Whether the global model has moved, so that updates have something to agree with."""
        return self._aggregate is not None

    def of(self, node: int, row: Float32) -> Float64:
        """Return the features of a client's update, (d,) → (f,), and remember it.

        The model of the round must be known.
        """
        assert self.profile is not None
        assert self._model is not None
        aggregate = np.zeros_like(self._model) if self._aggregate is None else self._aggregate
        sketch = self.profile.sketch(row)
        found = self.profile(row, sketch, aggregate, self._last.get(node))
        self._last[node] = sketch
        return found

    def forget(self, node: int) -> None:
        """Forget a client's last update, which its next one is not to be like."""
        self._last.pop(node, None)
