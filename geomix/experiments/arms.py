"""Arms of an experiment, each trained from its prepared examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from geomix.config.data import SourceConfig, mixes_of
from geomix.config.names import set_name
from geomix.config.run import RunConfig
from geomix.data.chat import ChatFormat
from geomix.data.example import Example
from geomix.data.probes import HELD_OUT
from geomix.data.provenance import tokens_hash
from geomix.data.tokenise import tokenise_all
from geomix.experiments.chat_templates import KEY as CHAT
from geomix.experiments.chat_templates import described as described_templates
from geomix.experiments.prepare import Prepared, Ready, base_of, load_base
from geomix.models.distributed import ALONE, Workers
from geomix.models.load import LoadedModel
from geomix.recording.quantities.collected import check_quantities, quantities_of
from geomix.recording.recorder import Recorder
from geomix.recording.weights import WeightsKeeper
from geomix.runs.configs import FIRST_LAYER
from geomix.runs.directory import RunDirectory
from geomix.runs.parts import Environment, keep_part, warning
from geomix.training.base_model import keep_base
from geomix.training.checkpoint import Checkpoint
from geomix.training.engine import Engine, Progress
from geomix.training.observer import Observer
from geomix.training.reuse import reused_of, settle
from geomix.training.stage import other_tokens
from geomix.training.step import autocast, row_width
from geomix.util.errors import Interrupted, UserError
from geomix.util.files import write_json, write_text
from geomix.util.reading import read_json


@dataclass(frozen=True, slots=True)
class Training:
    """Training of an experiment's arms.

    Attributes:
        run: of the experiment; the caller holds its lock.
        display: returns the progress display of an arm, by its name ("" for a run without arms).
        stop: whether the process was asked to end.
        workers: the processes that share the training.
        environment: the present one.
        warn: receives warnings about stages reused from a run of another environment.
    """

    run: RunDirectory
    display: Callable[[str], Progress]
    stop: Callable[[], bool]
    workers: Workers
    environment: Environment
    warn: Callable[[str], object]

    def arms(
        self,
        arms: Mapping[str, RunConfig],
        ready: Ready,
        starts: Mapping[str, Checkpoint | None],
    ) -> None:
        """Train arm after arm, each from its checkpoint or from θ_0.

        Raises:
            Interrupted: the process was asked to end; holds the run's folder.
        """
        try:
            self._arms(arms, ready, starts)
        except Interrupted:
            raise Interrupted(self.run.path) from None  # that is the folder to resume

    def _arms(
        self,
        arms: Mapping[str, RunConfig],
        ready: Ready,
        starts: Mapping[str, Checkpoint | None],
    ) -> None:
        loaded, ready.loaded = ready.loaded, None
        for name, config in arms.items():
            start, base = starts.get(name), base_of(config)
            if start is not None:
                loaded, base = None, (str(start.path), base[1])
            loaded = loaded or load_base(base, self.workers.device)
            arm, mine = arm_of(self.run, name), (ready.prepared[name], ready.chats[name])
            if start is None:
                self.workers.first(partial(keep_base, arm, config.model, loaded))
            if not name:
                self._train(self.run, config, *mine, loaded, self.display(name), start)
            else:
                with self._writing(arm, name, config, ready.chats[name], start):
                    self._train(arm, config, *mine, loaded, self.display(name), start)
            loaded = None  # every arm starts from θ_0

    @contextmanager
    def _writing(
        self,
        arm: RunDirectory,
        name: str,
        config: RunConfig,
        chat: ChatFormat,
        start: Checkpoint | None,
    ) -> Iterator[None]:
        """Lock an arm's folder and describe the arm, in the process that writes."""
        if not self.workers.main:
            yield
            return
        self.run.set_status("running", arm=name)
        with arm.writing():
            write_text(arm.config_file, f"# arm {name} of ../../config.yaml\n")
            resolve(arm, name, {"": config}, {"": chat})
            keep_part(arm, self.environment, position_of(start))
            yield

    def _train(
        self,
        run: RunDirectory,
        config: RunConfig,
        prepared: Prepared,
        chat: ChatFormat,
        loaded: LoadedModel,
        progress: Progress,
        start: Checkpoint | None,
    ) -> None:
        """Train one arm with its recorder as an observer."""
        record = config.record
        observers: list[Observer] = []
        if record is not None:
            probes = prepared.probes
            observers.append(recorder_of(run, config, probes, chat, loaded, self.workers))
        if record is not None and record.weights:
            observers.append(WeightsKeeper(run.stage_folder, record.at, loaded, self.workers))
        evaluated = {
            name: tokenise_all(loaded.tokenizer, examples, chat)
            for name, examples in prepared.evaluated.items()
        }
        known = {arm.name: arm for arm in self.run.arms if arm != self.run}
        found = self.workers.first(lambda: settle(config, run, known))
        self._compare_reused(found)
        engine = Engine(
            config,
            loaded,
            run,
            observers,
            progress,
            evaluated,
            self.stop,
            reused_of(found),
            {int(index): steps for index, steps in found["steps"].items()},
            self.workers,
            chat,
        )
        engine.train(prepared.plans, start)

    def _compare_reused(self, settled: Mapping[str, Any]) -> None:
        """Warn about stages still to be reused that were trained in another environment."""
        for index, reused in settled["taken"].items() if self.workers.main else ():
            what = f"stages[{index}].from {reused['folder']}: taken into a run"
            found = [warning(what, part, self.environment) for part in reused["environment"]]
            for line in dict.fromkeys(filter(None, found)):
                self.warn(line)


def position_of(start: Checkpoint | None) -> dict[str, int]:
    """Return the stage, from 0, and the step within it from which training resumes."""
    if start is None:
        return {"stage": 0, "step": 0}
    return {"stage": start.position.stage, "step": start.position.step}


def arm_of(run: RunDirectory, name: str) -> RunDirectory:
    """Return the run of an arm; "" is a run without arms."""
    return RunDirectory(run.path / "arms" / name) if name else run


def recorder_of(
    run: RunDirectory,
    config: RunConfig,
    whole: Mapping[str, list[Example]],
    chat: ChatFormat,
    loaded: LoadedModel,
    workers: Workers = ALONE,
) -> Recorder:
    """Return the recorder of the run's probe sets, and store their texts beside the snapshots."""
    record = config.record
    assert record is not None
    check_quantities(record.quantities, workers)
    probes = {name: examples[: record.probes] for name, examples in whole.items()}
    tokenised = {
        name: tokenise_all(loaded.tokenizer, examples, chat) for name, examples in probes.items()
    }
    described = {
        name: {
            "n": len(examples),
            "of": len(whole[name]),
            "examples": [example.texts() for example in examples],
            "tokens_sha256": tokens_hash(tokenised[name]),
        }
        for name, examples in probes.items()
    }
    workers.first(lambda: _keep_probes(run, described, config))
    train = config.stages[0].train
    return Recorder(
        run.snapshot_folder,
        tokenised,
        at=record.at,
        reduction=train.loss,
        batch_size=record.batch_size,
        pad_id=loaded.pad_id,
        activations=record.activations,
        lens=record.lens,
        modules=record.modules,
        quantities=quantities_of(record.quantities),
        adam=record.adam,
        sketches=(record.sketches.entries, record.sketches.seed) if record.sketches else None,
        gradients=record.gradients,
        midpoints=record.midpoints,
        pairs=record.pairs,
        scratch=record.scratch == "disk",
        autocast=partial(autocast, train.precision, loaded.device),
        width=row_width(train, loaded),
        origin={
            "model": config.model,
            "seed": config.seed,
            "precision": train.precision,
            "chat_template": config.chat_template,
            "training_sha256": config.content_hash("record"),
        },
        workers=workers,
    )


_TEXTS = ("n", "of", "examples")
"""Keys of a set in the `probes.json` of older versions."""


def _source_of(config: RunConfig, name: str) -> str:
    """Return the origin of a probe set's examples, for a message."""
    sources: dict[str, SourceConfig] = {
        set_name(index): stage.data for index, stage in enumerate(config.stages)
    }
    sources[HELD_OUT] = config.stages[0].data
    mixes = [stage.mix for stage in config.stages]
    for mix in [*mixes, config.record.mix if config.record else None]:
        for mixed, one in mixes_of(mix).items():
            sources.setdefault(mixed, one)
    found = sources.get(name)
    return "its source" if found is None else found.path or found.source


def _keep_probes(run: RunDirectory, described: dict[str, Any], config: RunConfig) -> None:
    """Write the probes' texts; reject others than those of earlier snapshots."""
    known = read_json(run.probes_file) if run.probes_file.exists() else None
    for name, found in json.loads(json.dumps(described)).items():
        before = known.get(name) if known is not None else found
        before = before if isinstance(before, dict) else {}
        tokens = before.get("tokens_sha256", found["tokens_sha256"])  # an older version has none
        if {key: found[key] for key in _TEXTS} != {key: before.get(key) for key in _TEXTS}:
            raise UserError(
                f"{run.probes_file}: {name} is not what it was when the run began; restore "
                f"{_source_of(config, name)} or begin a new run"
            )
        if tokens != found["tokens_sha256"]:
            raise other_tokens(run.probes_file, name)
    if known is None:
        write_json(run.probes_file, described)


def resolve(
    run: RunDirectory, name: str, arms: Mapping[str, RunConfig], chats: Mapping[str, ChatFormat]
) -> None:
    """Write the resolved configuration, which makes a folder a run."""
    first = next(iter(arms.values()))
    names = None if "" in arms else list(arms)
    content: dict[str, Any] = {"name": name, "hash": first.content_hash(), "arms": names}
    content[FIRST_LAYER] = 1
    content["config"] = first.model_dump(mode="json")
    content[CHAT] = described_templates(chats)
    if names:
        content["configs"] = {name: config.model_dump(mode="json") for name, config in arms.items()}
    write_json(run.resolved_file, content)
