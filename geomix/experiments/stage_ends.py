"""An arm's models at the ends of its stages, and every set on which they can be compared.

Checkpoints of a stage that trained adapters hold them merged into the weights: the model is whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from geomix.config.names import HELD_OUT, letter_of
from geomix.config.recording import RecordConfig
from geomix.config.run import RunConfig
from geomix.data.example import TokenisedExample
from geomix.data.tokenise import tokenise_all
from geomix.experiments.chat_templates import kept_templates
from geomix.experiments.checkpoints import Revisit
from geomix.experiments.past_weights import folder_of
from geomix.experiments.prepare import base_of, load_base, prepared_arms
from geomix.models.load import LoadedModel, default_device, load_model, quiet_libraries
from geomix.runs.configs import stored_configs
from geomix.runs.directory import RunDirectory
from geomix.training.base_model import check_base
from geomix.training.checkpoint import check
from geomix.training.stage import Stage, mixed_sets
from geomix.util.errors import UserError


@dataclass(eq=False)
class StageEnds:
    """One arm, whose models are loaded one by one, in float32 and evaluation mode.

    Attributes:
        arm: its run directory.
        config: its configuration.
        stages: its stages, with their examples as tokens.
        sets: every evaluated set by name, then the held-out one if there is any.
    """

    arm: RunDirectory
    config: RunConfig
    stages: list[Stage]
    sets: dict[str, list[TokenisedExample]]
    _base: LoadedModel | None = field(default=None, repr=False)

    @classmethod
    def open(cls, arm: RunDirectory) -> StageEnds:
        """Prepare the examples of an arm, or of a run without arms.

        Raises:
            UserError: a source's data has changed, or the base model has.
        """
        quiet_libraries()
        (config,) = stored_configs(arm).values()
        recorded = config if config.record else config.model_copy(update={"record": RecordConfig()})
        device = default_device()
        ready = prepared_arms({"": recorded}, device, templates=kept_templates(arm))
        loaded, ready.loaded = ready.loaded or load_base(base_of(config), device), None
        check_base(arm, config.model, loaded)
        prepared, chat = ready.prepared[""], ready.chats[""]
        stages = Revisit(arm, recorded, ready, prepared, chat).stages()
        sets = {stage.plan.name: list(stage.own) for stage in stages}
        sets |= {name: list(examples) for name, examples in mixed_sets(stages).items()}
        more = dict(prepared.evaluated)
        if HELD_OUT in prepared.probes:
            more[HELD_OUT] = prepared.probes[HELD_OUT]
        sets |= {name: tokenise_all(loaded.tokenizer, texts, chat) for name, texts in more.items()}
        return cls(arm, config, stages, sets, loaded)

    def model(self, ended: int) -> LoadedModel:
        """Load the model after so many stages; 0 is θ_0, which can be asked for once.

        Raises:
            UserError: its weights are missing or damaged.
        """
        if ended == 0:
            loaded, self._base = self._base, None
            loaded = loaded or load_base(base_of(self.config), default_device())
        else:
            folder = folder_of(self.arm, letter_of(ended - 1))
            assert folder is not None
            loaded = load_model(str(check(folder).path), default_device())
        loaded.model.float().eval()
        return loaded


def distance(one: LoadedModel, other: LoadedModel) -> float:
    """Return ‖θ − θ'‖ over all parameters, tied ones once, summed in float64.

    Raises:
        UserError: the models have other parameters.
    """
    mine, theirs = (dict(loaded.model.named_parameters()) for loaded in (one, other))
    if {n: p.shape for n, p in mine.items()} != {n: p.shape for n, p in theirs.items()}:
        raise UserError("the models at two checkpoints have other parameters: no displacement")
    with torch.no_grad():
        squares = [float((p - theirs[n]).double().square().sum()) for n, p in mine.items()]
    return math.sqrt(sum(squares))
