"""Choice of a source's examples: those that fit the model, and those that it knows or does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geomix.config.data import DataConfig, FamiliarConfig, SourceConfig
from geomix.config.run import RunConfig
from geomix.data.chat import ChatFormat, chat_format
from geomix.data.example import Example, TokenisedExample
from geomix.data.probes import shots_of
from geomix.data.tokenise import tokenise_all
from geomix.models.familiarity import as_text, cache_folder, familiar, shown
from geomix.models.load import LoadedModel, embedded_tokens
from geomix.util.errors import UserError

FAMILIAR = "familiar"
UNFAMILIAR = "not familiar"
SHOWN = "shown as a solved example"


@dataclass(frozen=True, slots=True)
class Chooser:
    """Choice of examples (`geomix.data.plan.Choose`) by the tokenizer and the base model.

    Attributes:
        config: the run.
        loaded: the base model, θ_0.
        chat: the run's chat format.
        cache: folder of the stored results on familiarity.
    """

    config: RunConfig
    loaded: LoadedModel
    chat: ChatFormat
    cache: Path

    def __call__(self, source: SourceConfig, examples: Sequence[Example]) -> list[str]:
        """Return why each example is not used; empty if it is.

        Raises:
            UserError: familiarity cannot be tested, or the tokenizer is another model's.
        """
        most = longest(self.config, self.loaded)
        tokens = tokenise_all(self.loaded.tokenizer, examples, self.chat)
        _check_ids(self.config.model, self.loaded, source, tokens)
        too_long = f"longer than {most} tokens{self._limit(most)}"
        reasons = [too_long if len(example.ids) > most else "" for example in tokens]
        if isinstance(source, DataConfig) and (asked := source.familiar) is not None:
            shots = self._shots(source, asked)
            solved = {shot.prompt for shot in shots}
            reasons = [
                r or SHOWN * (e.prompt in solved) for r, e in zip(reasons, examples, strict=True)
            ]
            fitting = [i for i, reason in enumerate(reasons) if not reason]
            size = self.config.evaluate.batch_size
            facts = [examples[i] for i in fitting]
            ends = {self.loaded.tokenizer.eos_token_id}
            if asked.prompt == "chat":
                prompts = [list(tokens[i].ids[: tokens[i].target_start]) for i in fitting]
                ends |= {tokens[i].labels[-1] for i in fitting}
            else:
                prompts = as_text(self.loaded.tokenizer, [shown(fact, shots) for fact in facts])
            known = familiar(self.loaded, facts, prompts, ends, size, self.cache)
            for i, knows in zip(fitting, known, strict=True):
                if knows is (asked.facts == "drop"):
                    reasons[i] = FAMILIAR if knows else UNFAMILIAR
        return reasons

    def _limit(self, most: int) -> str:
        """Return the cause of the limit, other than `max_tokens` or the number of positions."""
        why = self.loaded.positions.why
        return f" ({why})" if why and most == self.loaded.positions.most else ""

    def _shots(self, source: DataConfig, asked: FamiliarConfig) -> list[Example]:
        if asked.prompt != "few-shot":
            return []
        shots = shots_of(source, self.config.seed, asked.shots)
        if len(shots) < asked.shots:
            raise UserError(
                f"data source '{source.source}': familiar: {asked.shots} solved examples are to be "
                f"shown, there are {len(shots)}; set familiar.shots, or familiar.prompt: plain"
            )
        return shots


def _check_ids(
    model: str, loaded: LoadedModel, source: SourceConfig, examples: Sequence[TokenisedExample]
) -> None:
    embedded = embedded_tokens(loaded.model)
    highest = max((max(example.ids) for example in examples), default=0)
    if highest >= embedded:
        raise UserError(
            f"data source '{source.source}': its tokenizer gives id {highest}, model '{model}' "
            f"embeds only {embedded} tokens; are the two of one model?"
        )


def chooser(config: RunConfig, loaded: LoadedModel, chat: ChatFormat | None = None) -> Chooser:
    """Return the choice of a run in its chat format, with the user's own cache."""
    chat = chat or chat_format(config.chat_template, loaded.tokenizer)
    return Chooser(config, loaded, chat, cache_folder())


def longest(config: RunConfig, loaded: LoadedModel) -> int:
    """Return the tokens of the longest example that is used."""
    return loaded.positions.up_to(config.max_tokens)
