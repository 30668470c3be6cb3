"""Probabilities of events that follow one another, as logarithms of yes and of no."""

from typing import NamedTuple

from keras import KerasTensor, ops


class LogProbability(NamedTuple):
    """`log p` and `log (1 - p)` of the same event, so that no product or mixture of them loses its small side.

    Cross-entropy of a product such as pCTR x pCVR needs `log (1 - pCTR pCVR)`. Computed from the product it is
    infinite where the product rounds to 1, and clipped probabilities have no gradient; here both logarithms are
    sums of finite terms for every finite logit.

    >>> p = LogProbability.of(ops.array([0.0])).then(LogProbability.of(ops.array([0.0])))
    >>> p.probability().numpy().tolist()
    [0.25]
    """

    yes: KerasTensor
    no: KerasTensor

    @classmethod
    def of(cls, logit: KerasTensor) -> "LogProbability":
        """The probability `sigmoid(logit)`."""
        return cls(ops.log_sigmoid(logit), ops.log_sigmoid(-logit))

    def then(self, conditional: "LogProbability") -> "LogProbability":
        """Both events: `p q`, with q the second one's probability given the first."""
        return LogProbability(self.yes + conditional.yes, ops.logaddexp(self.no, self.yes + conditional.no))

    def either(self, given: "LogProbability", otherwise: "LogProbability") -> "LogProbability":
        """An event with probability `given` after this one and `otherwise` without it: `p q + (1 - p) r`."""
        return LogProbability(
            ops.logaddexp(self.yes + given.yes, self.no + otherwise.yes),
            ops.logaddexp(self.yes + given.no, self.no + otherwise.no),
        )

    def probability(self) -> KerasTensor:
        """The probability itself."""
        return ops.exp(self.yes)

    def cross_entropy(self, label: KerasTensor) -> KerasTensor:
        """Binary cross-entropy, elementwise."""
        return -(label * self.yes + (1 - label) * self.no)
