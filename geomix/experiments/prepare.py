"""Examples of each arm, chosen with its θ_0 before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from geomix.config.run import RunConfig
from geomix.data.chat import ChatFormat, Template
from geomix.data.example import Example
from geomix.data.plan import Choose, StagePlan, plan_stages, use_all
from geomix.data.probes import evaluation_sets, probe_sets
from geomix.data.sources.select import reading_once
from geomix.experiments.chat_templates import format_of
from geomix.experiments.filters import chooser
from geomix.models.hub import no_folder
from geomix.models.load import LoadedModel, load_model
from geomix.training.reuse import check_fits
from geomix.training.setup import check_setup, weights_dtype
from geomix.util.errors import Gathered, UserError
from geomix.util.progress import phase


@dataclass(frozen=True, slots=True)
class Prepared:
    """Examples of one arm, chosen with its base model.

    Attributes:
        plans: of its stages.
        probes: the sets whose gradients are recorded, whole.
        evaluated: the sets that are evaluated besides the stages' own.
    """

    plans: list[StagePlan]
    probes: dict[str, list[Example]]
    evaluated: dict[str, list[Example]]


def prepare(config: RunConfig, choose: Choose = use_all) -> Prepared:
    """Prepare all examples of a run.

    Raises:
        UserError: a source cannot give what the configuration requests.
    """
    plans = plan_stages(config, choose)
    probes = probe_sets(config, plans, choose) if config.record else {}
    return Prepared(plans, probes, evaluation_sets(config, plans, choose))


@dataclass(slots=True)
class Ready:
    """Everything prepared before training.

    Attributes:
        prepared: the examples of each arm.
        chats: the chat format of each.
        loaded: the first arm's θ_0; its training takes it over, so that it is not held beside the
            next arm's.
    """

    prepared: dict[str, Prepared]
    chats: dict[str, ChatFormat] = field(default_factory=dict)
    loaded: LoadedModel | None = None


def prepared_arms(
    arms: Mapping[str, RunConfig],
    device: torch.device,
    *,
    templates: Mapping[str, Template] = MappingProxyType({}),
    begins: str | None = None,
) -> Ready:
    """Prepare the examples of each arm, and load the first arm's θ_0.

    Args:
        arms: their configurations.
        device: of θ_0.
        templates: the chat templates stored in their run.
        begins: the time of a new run's start, or None; a new run's reused stages must fit its
            models.

    Raises:
        UserError: a source cannot give what a configuration requests, or a model cannot be used.
    """
    bases = {base_of(config): None for config in arms.values()}  # in order, each once
    ready = Ready({})
    with reading_once():
        with phase("reading the data"):
            mistakes = Gathered()
            for config in arms.values():
                with mistakes.each():
                    if (why := no_folder(config.model)) is not None:
                        raise UserError(f"{config.location('model')}: {why}")
                with mistakes.each():
                    prepare(config)  # a mistake in the data shows before any model is loaded
            mistakes.check()
        for base in reversed(bases):  # the first arm's last: it is the one to keep
            ready.loaded = load_base(base, device)
            for name, config in arms.items():
                if base_of(config) == base:
                    if begins is not None:
                        check_fits(config, ready.loaded)
                        check_setup(config, ready.loaded)
                    tokenizer, kept = ready.loaded.tokenizer, templates.get(name)
                    chat = format_of(config, tokenizer, kept, begins)
                    ready.chats[name] = chat
                    with phase("choosing examples"):
                        ready.prepared[name] = prepare(config, chooser(config, ready.loaded, chat))
    return ready


def base_of(config: RunConfig) -> tuple[str, bool]:
    """Return θ_0's identity: the model's name, and whether its weights are always in bfloat16."""
    halved = {weights_dtype(config, i) for i in range(len(config.stages))} == {torch.bfloat16}
    return config.model, halved


def load_base(base: tuple[str, bool], device: torch.device) -> LoadedModel:
    """Load the model that `base_of` names, or the checkpoint that replaces it."""
    name, halved = base
    loaded = load_model(name, device)
    if halved:
        loaded.model.to(torch.bfloat16)
    return loaded
