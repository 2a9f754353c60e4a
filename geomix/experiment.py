"""From a configuration to runs on disk: each arm planned, trained and recorded."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from geomix.atomic import write_json, write_text
from geomix.choose import chooser
from geomix.config import RunConfig
from geomix.config_file import Experiment
from geomix.data.chat import chat_format
from geomix.data.example import Example
from geomix.data.probes import evaluation_sets, probe_sets
from geomix.data.registry import reading_once
from geomix.data.stage import Choose, StagePlan, plan_stages, use_all
from geomix.data.template import tokenise_all
from geomix.environment import describe_environment
from geomix.errors import UserError
from geomix.model.load import LoadedModel, default_device, load_model
from geomix.record.recorder import Recorder
from geomix.run import DEFAULT_ROOT, Run
from geomix.train.engine import Engine, Progress
from geomix.train.step import autocast, row_width


def new_folder(name: str, root: Path = DEFAULT_ROOT) -> Path:
    """A folder for a new run: date and name, numbered where that is taken."""
    base = f"{datetime.date.today().isoformat()}-{name}"
    number, folder = 1, root / base
    while folder.exists():
        number += 1
        folder = root / f"{base}-{number}"
    return folder


def check_free(folder: Path) -> None:
    """Refuse a folder that holds anything, or that cannot be one.

    Raises:
        UserError: it is a file, or not empty.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UserError(f"--out {str(folder)!r}: not UTF-8; name another folder") from None
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: a file; name a folder that is not there yet")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--out {folder}: not empty; name a folder that is not there yet")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The examples of one arm, chosen with its base model.

    Attributes:
        plans: of its stages.
        probes: the sets whose gradients are recorded, whole.
        evaluated: the sets that are evaluated besides the stages' own.
    """

    plans: list[StagePlan]
    probes: dict[str, list[Example]]
    evaluated: dict[str, list[Example]]


def prepare(config: RunConfig, choose: Choose = use_all) -> Prepared:
    """All examples of a run.

    Raises:
        UserError: a source cannot give what the configuration asks for.
    """
    plans = plan_stages(config, choose)
    probes = probe_sets(config, plans, choose) if config.record else {}
    return Prepared(plans, probes, evaluation_sets(config, plans, choose))


def run_experiment(
    experiment: Experiment,
    folder: Path,
    display: Callable[[str], Progress],
    say: Callable[[str], object] = str,
) -> Run:
    """Train every arm of an experiment into `folder`.

    Everything that can be wrong with the data and the models is found before the folder is made.

    Args:
        experiment: the validated configuration.
        folder: a new run directory.
        display: gives the progress display of an arm, by its name ("" for a run without arms).
        say: is told where the run is, once its folder is made.

    Returns:
        The finished run.
    """
    check_free(folder)
    device = default_device()
    first = next(iter(experiment.arms.values()))
    bases = {_base_of(config): None for config in experiment.arms.values()}  # in order, each once
    prepared: dict[str, Prepared] = {}
    with reading_once():
        for config in experiment.arms.values():
            prepare(config)  # a mistake in the data shows before any model is loaded
        for base in reversed(bases):  # the first arm's last: it is the one to keep
            loaded: LoadedModel | None = _load(base, device)
            assert loaded is not None
            for name, config in experiment.arms.items():
                if _base_of(config) == base:
                    prepared[name] = prepare(config, chooser(config, loaded))
    run = Run(folder)
    arms = None if "" in experiment.arms else list(experiment.arms)
    with _writing(run, experiment.name, first, experiment.text, arms, device):
        say(f"{experiment.name} → {folder}")
        for name, config in experiment.arms.items():
            loaded = loaded or _load(_base_of(config), device)
            if not name:
                _train(run, config, prepared[name], loaded, display(name))
            else:
                run.set_status("running", arm=name)
                arm = Run(folder / "arms" / name)
                text = f"# arm {name} of ../../config.yaml\n"
                with _writing(arm, name, config, text, None, device):
                    _train(arm, config, prepared[name], loaded, display(name))
            loaded = None  # every arm starts from θ_0
    return run


def _base_of(config: RunConfig) -> tuple[str, bool]:
    """What θ_0 is: the model's name, and whether its weights are cut to bfloat16."""
    return config.model, "bf16-weights" in config.paper_literal


def _load(base: tuple[str, bool], device: torch.device) -> LoadedModel:
    name, halved = base
    loaded = load_model(name, device)
    if halved:
        loaded.model.to(torch.bfloat16)
    return loaded


@contextmanager
def _writing(
    run: Run,
    name: str,
    config: RunConfig,
    text: str,
    arms: list[str] | None,
    device: torch.device,
) -> Iterator[None]:
    """Hold a run's folder, say what it is, and keep its status true however the block ends."""
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run.path}: cannot be made ({error.strerror})") from None
    with run.locked():
        write_text(run.config_file, text)
        write_json(run.environment_file, describe_environment(device))
        run.set_status("running")
        resolved = {"name": name, "hash": config.content_hash(), "arms": arms}
        write_json(run.resolved_file, {**resolved, "config": config.model_dump(mode="json")})
        try:
            yield
        except KeyboardInterrupt:
            run.set_status("interrupted")
            raise
        except BaseException as error:
            run.set_status("failed", why=str(error) or type(error).__name__)
            raise
        run.set_status("done")


def _train(
    run: Run, config: RunConfig, prepared: Prepared, loaded: LoadedModel, progress: Progress
) -> None:
    """Train one arm with its recorder looking on."""
    observers = [_recorder(run, config, prepared.probes, loaded)] if config.record else []
    chat = chat_format(config.chat_template, loaded.tokenizer)
    evaluated = {
        name: tokenise_all(loaded.tokenizer, examples, chat)
        for name, examples in prepared.evaluated.items()
    }
    Engine(config, loaded, run, observers, progress, evaluated).train(prepared.plans)


def _recorder(
    run: Run, config: RunConfig, whole: Mapping[str, list[Example]], loaded: LoadedModel
) -> Recorder:
    """The recorder over the run's probe sets, whose texts are kept beside the snapshots."""
    record = config.record
    assert record is not None
    probes = {name: examples[: record.probes] for name, examples in whole.items()}
    described = {
        name: {
            "n": len(examples),
            "of": len(whole[name]),
            "examples": [asdict(example) for example in examples],
        }
        for name, examples in probes.items()
    }
    write_json(run.probes_file, described)
    train = config.stages[0].train
    tokenizer = loaded.tokenizer
    chat = chat_format(config.chat_template, tokenizer)
    return Recorder(
        run.snapshot_folder,
        {name: tokenise_all(tokenizer, examples, chat) for name, examples in probes.items()},
        at=record.at,
        reduction=train.loss,
        batch_size=record.batch_size,
        pad_id=loaded.pad_id,
        activations=record.activations,
        autocast=partial(autocast, train.precision, loaded.device),
        width=row_width(train, loaded),
    )
