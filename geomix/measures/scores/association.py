"""Association: the excess likelihood of an answer after its own prompt over the set's others.

M_ji = log2 p(y_i | x_j), of whole answers with their end tokens; J are the n − 1 prompts but i's
own and those for which y_i is accepted too.

    a    = M_ii − log2 mean_{j∈J} 2^M_ji      the likeliest wrong prompts carry that mean
    a_c  = log2(n·r / (r + n − 1)), r = 2^a   the own prompt in the mean, too: at most log2 n
    a_g  = M_ii − mean_{j∈J} M_ji             against the typical wrong prompt
    v    = H + log2 mean_{j∈J} 2^M_ji         bits that every prompt has: bits b = a + v

No entropy is needed, and what the model knows of answers in general cancels. Where pairing carries
nothing, the own prompt is exchangeable with the others: E 2^a_c = 1, P(a_c ≥ t) ≤ 2^−t, E a ≤ 0 and
E a_g = 0. Of a set of more than 256 examples J is drawn once, as `recognition` draws its answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from geomix.measures.scores.base import Asked, Score, ScoreCost
from geomix.measures.scores.recognition import asked_of, drawn_of, others_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS = ("association", "association_capped", "association_geometric", "shared_bits")


def associate(
    own: float, others: NDArray[np.float64], entropy: float | None = None
) -> dict[str, float | None]:
    """Compute the association of one answer: a, a_c, a_g and v, in bits.

    Args:
        own: ln p of the answer after its own prompt, in nats.
        others: ln p after each of J, `(n − 1,)`, at least one.
        entropy: H of the answer, in bits; None gives no v.
    """
    import numpy as np

    n, ln2 = len(others) + 1, math.log(2)
    shared = float(np.logaddexp.reduce(others)) - math.log(n - 1)
    capped = math.log(n) + own - float(np.logaddexp(own, math.log(n - 1) + shared))
    return {
        "association": (own - shared) / ln2,
        "association_capped": capped / ln2,
        "association_geometric": (own - float(others.mean())) / ln2,
        "shared_bits": None if entropy is None else entropy + shared / ln2,
    }


class Association(Score):
    """Mean bits by which an answer is likelier after its prompt than after others of the set."""

    name = "association"
    heading = "assoc."
    axis = "association, bits a fact"
    unit = "bits"
    column = "association"
    brings = COLUMNS[1:]
    lacking = "a set needs two answers that its prompts do not say"

    def ask(self, asked: Asked, which: Sequence[int]) -> list[dict[str, Any]]:
        """Score each answer after its own prompt and after those of J; each prompt is read once."""
        examples = [example.text for example in asked.examples]
        drawn = drawn_of(examples)
        wrong = {i: others_of(examples, i, drawn) for i in which if asked_of(examples[i])}
        wanted: dict[int, list[int]] = {}
        for i, others in wrong.items():
            for j in (i, *others):
                wanted.setdefault(j, []).append(i)
        logs = asked.log_probabilities([*wanted], [*wanted.values()])
        known = {
            (j, i): float(score)
            for (j, answers), scores in zip(wanted.items(), logs, strict=True)
            for i, score in zip(answers, scores, strict=True)
        }
        return [self._row(examples[i].entropy, i, wrong.get(i, []), known) for i in which]

    @staticmethod
    def _row(
        entropy: float | None, i: int, others: Sequence[int], known: dict[tuple[int, int], float]
    ) -> dict[str, Any]:
        import numpy as np

        scores = np.array([known[j, i] for j in others])
        scores = scores[np.isfinite(scores)]  # without nan: no positions
        if not len(scores) or not math.isfinite(known[i, i]):
            return dict.fromkeys(COLUMNS)
        return associate(known[i, i], scores, entropy)

    def cost(self, examples: Sequence[Any]) -> ScoreCost:
        """Return the cost: all prompts of J, and every answer after them."""
        asked = sum(map(asked_of, examples))
        drawn = len(drawn_of(examples)) if asked else 0
        return ScoreCost(drawn, asked * drawn)


class Capped(Score):
    """Mean association with the own prompt among the others: at most log2 of their number."""

    name = "association_capped"
    heading = "capped"
    axis = "capped association, bits"
    unit = "bits"
    column = "association_capped"
    part_of = "association"


class Geometric(Score):
    """Mean association against the typical wrong prompt: 0 where pairing carries nothing."""

    name = "association_geometric"
    heading = "geom."
    axis = "geometric association, bits"
    unit = "bits"
    column = "association_geometric"
    part_of = "association"


class Shared(Score):
    """Mean bits of an answer after the set's other prompts; with association they are its bits."""

    name = "shared_bits"
    heading = "shared"
    axis = "shared bits a fact"
    unit = "bits"
    column = "shared_bits"
    part_of = "association"
