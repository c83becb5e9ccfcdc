"""What each target's adversary knows beyond the vantage, put together for one transcript."""

from collections.abc import Sequence
from dataclasses import replace

from fedmia.knowledge import Knowledge, Positions, View
from fedmia.records import Capability
from fedmia.seeding import torch_seed
from fedmia.shadows import ShadowTraining
from fedmia.stage import Stage


def knowledge(
    stage: Stage, view: View, known: Sequence[tuple[Positions, Positions]]
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
    """
    seed = torch_seed(stage.seed, "adversary")
    common = Knowledge(stage.auxiliary, stage.dataset.num_classes, seed=seed)
    if Capability.RECIPE in stage.gives:
        common = replace(common, shadows=_shadows(stage, view, seed))
    # one value where nobody differs: what is trained on it is trained once
    return tuple(
        replace(common, known_members=members, known_nonmembers=others) if len(members) else common
        for members, others in known
    )


def _shadows(stage: Stage, view: View, seed: int) -> ShadowTraining:
    has = stage.config.knowledge
    return ShadowTraining(
        model=stage.model,
        trainer=stage.trainer,
        auxiliary=stage.auxiliary,
        candidates=stage.dataset.examples(stage.candidates.index),
        shard_sizes=[len(shard) for shard in stage.split.shards],
        num_rounds=stage.config.num_rounds,
        num_models=has.shadow_models,
        num_federations=has.shadow_federations,
        observer=stage.observer,
        seed=seed,
        folder=view.transcript.path / "shadows",
    )
