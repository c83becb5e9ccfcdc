"""Local SGD with ingredients: what training defences add to the steps that a client takes.

The loss of a record is a function of its logits z and of a target t, a distribution over classes:
``−Σ_c t_c log p_c`` with ``p = softmax(z)``, and t one-hot, unless an ingredient says otherwise.
Its gradient in the logits, ``δ = p − t``, is all that backpropagation has to know.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fedmia.errors import expect
from fedmia.site import Trainer
from fedmia.training import FlatModel, LocalSGD


class Session:
    """What an ingredient does in one call of :meth:`RegularizedSGD.fit`; nothing, in this class.

    The hooks of several sessions are called one after the other, each with what the last returned.
    Targets have shape (n, classes), in floating point, and rows that sum to 1.
    """

    def records(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return those that may be trained on of (n, *input_shape) and (n,); called once."""
        return x, y

    def labels(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return the targets of all records that are trained on; called once, before any pass."""
        return targets

    def epoch(self, number: int, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the records of one pass, the ``number``-th from 1 on, in any order."""
        return x, targets

    def batch(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return what one step sees in place of a batch, in new tensors."""
        return x, targets

    def residual(
        self, logits: Tensor, targets: Tensor, delta: Tensor, losses: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return gradients and losses in place of those so far.

        Called without gradients recorded.

        Parameters
        ----------
        logits, targets
            Shape (b, classes).
        delta
            Gradient of each record's loss in its logits, (b, classes). May be changed in place.
        losses
            Shape (b,).
        """
        return delta, losses

    def after(self, number: int) -> bool:
        """Return whether to stop after the ``number``-th pass."""
        return False

    def end(self) -> None:
        """Clean up; called once, also after an exception."""


class Ingredient(Protocol):
    """What begins a :class:`Session`; without a state of its own."""

    def begin(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> Session:
        """Return the session of one fit.

        Parameters
        ----------
        model
            To be trained from its present parameters.
        x, y
            Records (n, *input_shape) and labels (n,) that earlier ingredients left.
        rng
            The session's own. The order of the records does not depend on it.
        """


@dataclass(frozen=True)
class RegularizedSGD(LocalSGD):
    """:class:`LocalSGD` with what ingredients change, the first of them first.

    Parameters
    ----------
    ingredients
        With none, the steps are those of :class:`LocalSGD`.
    """

    ingredients: tuple[Ingredient, ...] = ()

    def fit(self, model: FlatModel, x: Tensor, y: Tensor, rng: np.random.Generator) -> float:
        """Train in place and return the mean loss of the last epoch, before each step.

        Parameters
        ----------
        model, x, y
            As of :meth:`LocalSGD.fit`.
        rng
            Draws the order of the records; its children draw for the ingredients.
        """
        sessions: list[Session] = []
        try:
            for ingredient, own in zip(
                self.ingredients, rng.spawn(len(self.ingredients)), strict=True
            ):
                sessions.append(ingredient.begin(model, x, y, own))
                x, y = sessions[-1].records(x, y)
            targets = one_hot(y, model.num_classes(x)).to(model.flat.dtype)
            for session in sessions:
                targets = session.labels(x, targets)
            model.module.train()
            return self._train(model, x, targets, rng, sessions)
        finally:
            for session in reversed(sessions):
                session.end()

    def _train(
        self,
        model: FlatModel,
        x: Tensor,
        targets: Tensor,
        rng: np.random.Generator,
        sessions: Sequence[Session],
    ) -> float:
        step, losses = self.stepper(model), _Losses(_changing(sessions, "residual"))
        batches = _changing(sessions, "batch")
        for epoch in range(1, self.local_epochs + 1):
            now_x, now_t = x, targets
            for session in sessions:
                now_x, now_t = session.epoch(epoch, now_x, now_t)
            order = torch.from_numpy(rng.permutation(len(now_x))).to(x.device)
            now_x, now_t = now_x[order], now_t[order]
            losses.seen.clear()
            for start in range(0, len(now_x), self.batch_size):
                batch_x = now_x[start : start + self.batch_size]
                batch_t = now_t[start : start + self.batch_size]
                for session in batches:
                    batch_x, batch_t = session.batch(batch_x, batch_t)
                model.backward_through(batch_x, losses.of(batch_t))
                step()
            if any([session.after(epoch) for session in sessions]):  # noqa: C419, all of them
                break
        return losses.mean()


class _Losses:
    """Gradients in the logits, and the losses that were met on the way.

    Parameters
    ----------
    sessions
        Those that change them.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self.sessions = sessions
        self.seen: list[Tensor] = []

    def of(self, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what the gradients of a batch with these targets are had by."""

        def residual(logits: Tensor) -> Tensor:
            log_p = torch.log_softmax(logits, dim=1)
            losses = (targets * log_p).sum(1).neg_()
            delta = log_p.exp_().sub_(targets)
            for session in self.sessions:
                delta, losses = session.residual(logits, targets, delta, losses)
            self.seen.append(losses)
            return delta

        return residual

    def mean(self) -> float:
        """Return the mean over the records of the last epoch."""
        return float(torch.cat(self.seen).mean())


def adding(trainer: Trainer, ingredient: Ingredient) -> RegularizedSGD:
    """Return a recipe with one ingredient more, called after those that it has.

    Raises
    ------
    ConfigError
        If the recipe's steps are not those of :class:`LocalSGD`.
    """
    kind = type(trainer).__name__
    allowed = f"LocalSGD (train=local_sgd), to whose steps {type(ingredient).__name__} adds"
    expect(type(trainer) in (LocalSGD, RegularizedSGD), "train", kind, allowed)
    assert isinstance(trainer, LocalSGD)
    settings = {field.name: getattr(trainer, field.name) for field in fields(LocalSGD)}
    there: tuple[Ingredient, ...] = getattr(trainer, "ingredients", ())
    return RegularizedSGD(**settings, ingredients=(*there, ingredient))


def _changing(sessions: Sequence[Session], hook: str) -> list[Session]:
    """Return the sessions that have a hook of their own."""
    return [s for s in sessions if getattr(type(s), hook) is not getattr(Session, hook)]
