"""Local differential privacy on updates: clipped and noised before they leave the client.

S. P. Kasiviswanathan, H. K. Lee, K. Nissim, S. Raskhodnikova, A. Smith, "What Can We Learn
Privately?", SIAM J. Comput. 40(3), 2011 (local privacy); the Gaussian mechanism on a clipped vector
as in C. Dwork, A. Roth, "The Algorithmic Foundations of Differential Privacy", 2014, Appendix A,
here with an accountant over all participations in place of its bound for one release.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from flwr.app import ConfigRecord, Context, Message

from clients.defenses.hiding import Handler
from clients.defenses.updates import Update, answered, clipped, expect_clip, round_of
from clients.honest import DroppedOutError
from fedmia.errors import expect
from fedmia.observe import SPENT
from fedmia.privacy.accounting import Account, Neighbours, gaussian_release
from fedmia.privacy.budget import Budget, Settled
from fedmia.privacy.claim import EVERYBODY, Claim, Setting, large_delta
from fedmia.privacy.lattice import noised
from fedmia.privacy.randomness import gaussian_source

_STATE = "local_dp"
_REASONS = (
    "neighbours: any two data sets of one client, so the sensitivity is twice the clip",
    "that a client takes part, and that it cannot, is not hidden",
)
_HIDDEN = (
    "nothing is claimed for the sum: noise in floating point that is rounded before it is summed "
    "is no discrete noise, so ε is that of one client's update alone"
)


@dataclass(frozen=True)
class LocalDp:
    """Clips the update in an answer to a ``train`` message to C and adds N(0, (zC)²) to it.

    All clients count as one example, and no metric leaves. What the local model protects is which
    of any two data sets a client has: between them a clipped update moves by up to 2C, which the
    account considers. A round that would cost more than the budget is not answered.

    Parameters
    ----------
    clip
        C, the bound on an update in L2 norm.
    clipping
        ``flat``, or ``per_layer``: each of L floating arrays to C/√L.
    noise_multiplier, epsilon, delta
        z and the budget of a client; see :class:`fedmia.privacy.budget.Budget`.
    rounds
        Participations that the budget is for; with one, no client takes part in more.
    secure_noise
        Whether noise comes from a secure source and cannot be repeated.
    seed
        Of the noise, if not.
    allow_evaluation
        Whether to answer ``evaluate`` messages, whose metrics have no noise.
    """

    clip: float = 1.0
    clipping: str = "flat"
    noise_multiplier: float | None = None
    epsilon: float | None = 8.0
    delta: float = 1e-5
    rounds: int = 30
    secure_noise: bool = False
    seed: int = 0
    allow_evaluation: bool = False
    adds_noise: ClassVar = True

    def __post_init__(self) -> None:
        expect_clip(self.clip, self.clipping)
        expect(self.rounds >= 1, "rounds", self.rounds, "at least 1")
        _ = self._settled

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise in one coordinate."""
        return self._settled.noise_multiplier * self.clip

    def claims(self, setting: Setting) -> list[Claim]:
        """Return what each client is promised, whoever looks."""
        return [
            Claim(
                unit="client",
                account=self._account(self._settled.noise_multiplier),
                holds_against=EVERYBODY,
                per_participation=True,
                reasons=(*_REASONS, _HIDDEN) if setting.hidden else _REASONS,
                secure=self.secure_noise,
                warnings=large_delta("delta", self.delta, setting.clients, "clients"),
            )
        ]

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer with the noised update; pass on what is no answer to ``train``.

        Raises
        ------
        DroppedOutError
            If a further participation would cost more than the budget.
        PermissionError
            If asked to evaluate without ``allow_evaluation``.
        """
        kind = message.metadata.message_type.split(".")[0]
        if kind == "evaluate" and not self.allow_evaluation:
            raise PermissionError("evaluate: its metrics have no noise (allow_evaluation=false)")
        if kind != "train":
            return call_next(message, context)
        taken, most = self._participations(context), self._settled.affordable
        if most is not None and taken >= most:
            raise DroppedOutError(f"{SPENT}: epsilon={self.epsilon} after {taken} participations")

        def change(update: Update) -> tuple[Update, Mapping[str, float]]:
            context.state[_STATE] = ConfigRecord({"participations": taken + 1})
            bounded = clipped(update, self.clip, self.clipping)
            return self._noised(bounded, context, round_of(message), taken), {}

        return answered(message, context, call_next, change)

    def _noised(self, update: Update, context: Context, server_round: int, taken: int) -> Update:
        """Return the update with noise of its own, also if a server states a round twice."""
        if not self.noise_std:
            return update
        client = int(context.node_config["partition-id"])
        key = (client, server_round, taken)
        noise = gaussian_source(self.secure_noise, self.seed, "local dp", *key)
        z = self._settled.noise_multiplier
        return {
            name: noised(values, z * noise(values.size).reshape(values.shape), self.clip)
            for name, values in update.items()
        }

    @property
    def _settled(self) -> Settled:
        budget = Budget(self.noise_multiplier, self.epsilon, self.delta)
        return budget.settle(self.rounds, self._account)

    def _account(self, noise_multiplier: float) -> Account:
        release = gaussian_release(noise_multiplier)
        return Account(release, Neighbours.REPLACE_ONE, self.delta)

    @staticmethod
    def _participations(context: Context) -> int:
        record = context.state.config_records.get(_STATE)
        return int(str(record["participations"])) if record else 0
