"""Draws of D_M other than the one that a run trained on."""

from __future__ import annotations

from geomix.config.data import Mix, MixConfig
from geomix.data.example import TokenisedExample
from geomix.data.plan import mixed_sets
from geomix.data.tokenise import tokenise_all
from geomix.experiments.filters import chooser
from geomix.experiments.precise import PreciseArm


def drawn_passages(arm: PreciseArm, mix: Mix, seed: int) -> list[TokenisedExample]:
    """Draw as many passages as an arm's first stage would mix in, with another seed.

    Args:
        arm: the arm, with its tokenizer, chat format and D_A.
        mix: their source, length and ratio, or several of these.
        seed: seed of the draw, in place of the source's own.

    Raises:
        UserError: the source cannot give as many.
    """
    choose = chooser(arm.config, arm.loaded, arm.chat)
    own = len(arm.stages[0].plan.own)
    mixes = (mix,) if isinstance(mix, MixConfig) else mix or ()
    asked = tuple(one.model_copy(update={"seed": seed}) for one in mixes)
    one_or_more = asked[0] if len(asked) == 1 else asked
    found = mixed_sets(arm.config, ("stages", 0, "mix"), one_or_more, own, 0, choose)
    examples = [example for part in found.values() for example in part.examples]
    return tokenise_all(arm.loaded.tokenizer, examples, arm.chat)
