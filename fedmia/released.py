"""What the adversary is handed: all of a transcript, or guarded outputs of the final model."""

import copy
import hashlib
from functools import cache

from torch import Tensor, nn

from fedmia.knowledge import View
from fedmia.releases.base import Owner, Release
from fedmia.seeding import torch_seed
from fedmia.signals import Signals
from fedmia.signals.released import Guard, ReleasedSignals
from fedmia.signals.weights import load
from fedmia.stage import Stage
from fedmia.transcript import Transcript
from fedmia.vantages import ReleasedModel


def view_of(stage: Stage, transcript: Transcript) -> View:
    """Return what the experiment's adversary sees, and the signals of the candidates.

    Behind a release that is no parameter of the model, and the signals are those of its guarded
    outputs, kept apart from those of other releases.
    """
    examples = stage.dataset.examples(stage.candidates.index)
    if stage.release is None:
        signals = Signals(transcript, stage.model, examples, transcript.path / "signals")
        return View(transcript, signals)
    name = hashlib.sha256(repr((stage.release, stage.seed)).encode()).hexdigest()[:16]
    folder = transcript.path / f"signals-{name}"
    guard = _guard(stage, stage.release, transcript)
    signals = ReleasedSignals(transcript, stage.model, examples, folder, guard)
    shown = ReleasedModel()
    return View(transcript.through(shown.name, shown.shows, lambda seen: None), signals)


def _guard(stage: Stage, release: Release, transcript: Transcript) -> Guard:
    """Return the guard of the final model, made when it is first asked."""

    @cache
    def made() -> Guard:
        model: nn.Module = copy.deepcopy(stage.model).eval()
        final = transcript.final
        if final is None:
            raise ValueError(f"{transcript.path}: there is no final model to release")
        load(model, final)
        others = stage.unasked
        seed = torch_seed(stage.seed, "release")
        return release.guard(Owner(model, stage.members, others, seed))

    def shown(x: Tensor, logits: Tensor) -> Tensor:
        return made()(x, logits)

    return shown
