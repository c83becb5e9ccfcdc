"""What each target's adversary knows beyond the vantage, put together for one transcript."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from fedmia.adaptive import Informed
from fedmia.knowledge import Knowledge, Positions, View
from fedmia.records import Capability
from fedmia.seeding import torch_seed
from fedmia.shadows import ShadowTraining
from fedmia.stage import Stage


def knowledge(
    stage: Stage,
    view: View,
    known: Sequence[tuple[Positions, Positions]],
    on_shadows: Callable[[int, int], None] | None = None,
    knows: Informed | None = None,
) -> tuple[Knowledge, ...]:
    """Return one value a target; what costs time to compute is shared by all of them.

    Parameters
    ----------
    stage
        The experiment's parts.
    view
        What the vantage shows; shadow federations are kept beside its transcript.
    known
        The members and non-members of each target that its adversary knows.
    on_shadows
        Called while shadow models are trained, with the rounds done and their number.
    knows
        What the adversary does about the defences; ``None`` for one that does not know them.
    """
    seed = torch_seed(stage.seed, "adversary")
    recipe = bool(stage.config.knowledge.recipe)
    common = Knowledge(stage.auxiliary, stage.dataset.num_classes, recipe=recipe, seed=seed)
    if Capability.SHADOWS in stage.gives:
        common = replace(common, shadows=_shadows(stage, view, seed, on_shadows, knows))
    # one value where nobody differs: what is trained on it is trained once
    return tuple(
        replace(common, known_members=members, known_nonmembers=others) if len(members) else common
        for members, others in known
    )


def _shadows(
    stage: Stage,
    view: View,
    seed: int,
    on_progress: Callable[[int, int], None] | None,
    knows: Informed | None,
) -> ShadowTraining:
    has, simulation = stage.config.knowledge, knows.simulation if knows else None
    return ShadowTraining(
        model=stage.model,
        trainer=stage.trainer,
        auxiliary=stage.auxiliary,
        candidates=stage.dataset.examples(stage.candidates.index),
        shard_sizes=stage.shown_sizes,
        num_rounds=stage.config.num_rounds,
        num_models=has.shadow_models,
        num_federations=has.shadow_federations,
        vantage=stage.vantage,
        seed=seed,
        folder=view.transcript.path / ("shadows_adaptive" if simulation else "shadows"),
        on_progress=on_progress,
        simulation=simulation,
        lens=knows.lens if knows else None,
    )
