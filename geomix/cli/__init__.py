"""The command `geomix`: parse, call, print. Each command imports its heavy dependencies itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geomix.cli.analyze import analyze
from geomix.cli.data import data
from geomix.cli.figures import figure
from geomix.cli.options import EntryOf
from geomix.cli.record import export, record
from geomix.cli.study import study
from geomix.cli.sweep import sweep
from geomix.measures.scores import SCORES
from geomix.util.errors import Interrupted, UserError, first_line
from geomix.util.terminal import echo, echo_json, screened

if TYPE_CHECKING:
    from geomix.cli.train import How

MOST_SHOWN = 600
"""Most characters printed of one mistake."""


def is_one_of_several() -> bool:
    """Return whether a launcher started this process among others."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def is_main() -> bool:
    """Return whether this process prints; of several started by a launcher, only one does."""
    return not is_one_of_several() or os.environ.get("RANK") in (None, "", "0")


class _OneLineErrors(click.Group):
    """Group that prints a user's mistakes with exit status 2, and screens all output."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        with screened():  # click's own messages too
            return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            lines = error.lines
        except KeyboardInterrupt:
            echo("geomix: stopped", err=True)
            raise click.exceptions.Exit(130) from None  # 128 + SIGINT, as in shells
        except BrokenPipeError:
            raise  # click ends quietly: the reader of a pipe has what it wanted
        except OSError as error:  # a full disk, a folder without permission
            lines = (f"{error.filename or 'files'}: {error.strerror or error}",)
        except ValueError as error:
            if "null byte" not in str(error):
                raise
            lines = ("a name holds a null byte; no file can have it",)
        except MemoryError:
            lines = ("out of memory; ask for less, or let a larger machine do it",)
        except BaseException as error:
            if type(error).__module__ != "pyo3_runtime":  # a panic of a library in Rust
                raise
            lines = (f"a library gave up on its input: {first_line(error)}",)
        for line in lines if is_main() else ():
            echo(f"geomix: {' '.join(line.split())[:MOST_SHOWN]}", err=True)
        raise click.exceptions.Exit(2)


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="geomix")
def main() -> None:
    """Study how language models memorise and forget: staged fine-tuning, recorded and analysed."""


@main.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key, in dots: --set stages.0.mix.ratio=4 (keys count stages from 0).",
)
@click.option("--arm", "only", multiple=True, metavar="NAME", help="Train only this arm, or these.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory [runs/DATE-NAME].")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print stages, exact counts, steps, padding, memory and disk; run nothing.",
)
@click.option(
    "--gpus",
    type=click.IntRange(1, 65536),
    metavar="N",
    help="With --dry-run: plan for N GPUs, one a process [this machine].",
)
@click.option(
    "--gpu-memory",
    type=click.FloatRange(0, min_open=True),
    metavar="GB",
    help="With --dry-run: memory of each [80].",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Resume an interrupted run, as if it had not been interrupted.",
)
@click.option("--quiet", is_flag=True, help="Print the run's folder and mistakes, nothing else.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print metrics.jsonl as it is written, or the dry run."
)
def train(
    config: Path | None,
    overrides: tuple[str, ...],
    only: tuple[str, ...],
    out: Path | None,
    dry_run: bool,
    gpus: int | None,
    gpu_memory: float | None,
    resume: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Fine-tune a model in stages and record its gradients.

    CONFIG is a YAML file or the name of a preset; without it the preset `demo` runs.

    --resume RUN resumes a run that was killed; one that was asked to end (SIGTERM, Ctrl-C) saves
    first and exits with status 75.
    """
    from geomix.config.load import load
    from geomix.data.sources import SOURCES

    if quiet and (as_json or dry_run):
        raise UserError("--quiet: it prints next to nothing; leave out --json and --dry-run")
    if (gpus is not None or gpu_memory is not None) and not dry_run:
        raise UserError(
            "--gpus, --gpu-memory: they are of a plan; add --dry-run, or start several processes "
            "with torchrun --nproc_per_node N -m geomix train …"
        )
    if resume is not None and (out is not None or dry_run):
        raise UserError(
            "--resume: it goes on in the run's own folder; leave out --out and --dry-run"
        )
    if resume is not None and (overrides or only) and config is None:
        raise UserError(
            "--resume takes no changes: leave out --set and --arm, or begin a new run with --out"
        )
    experiment = None
    if resume is None or config is not None:
        experiment = load(_config_file(config), overrides, tuple(SOURCES)).with_arms(only)
    if dry_run and experiment is not None:
        from geomix.planning.plan import show_plan

        show_plan(experiment, gpus=gpus, gib=gpu_memory, as_json=as_json)
        return
    from geomix.cli.train import launch
    from geomix.experiments.run import check_free
    from geomix.util.signals import EXIT

    if out is not None and is_main():
        check_free(out)
    how: How = "json" if as_json else "quiet" if quiet else "shown"
    try:
        launch(experiment, resume or out, how if is_main() else "silent", resume=resume is not None)
    except Interrupted as saved:
        if is_main():
            run = str(saved) or resume
            then = f"saved; go on with: geomix train --resume {run}" if run else "nothing was begun"
            echo(f"geomix: {then}", err=True)
        raise click.exceptions.Exit(EXIT) from None


main.add_command(study)
main.add_command(sweep)
main.add_command(data)
main.add_command(export)
main.add_command(record)
main.add_command(figure)
main.add_command(analyze)


@main.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--metric",
    type=EntryOf(SCORES),
    help="What the retention table shows [exact_match, and what evaluate.scores names].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the retention, all metrics, as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the retention, all metrics, as CSV.")
def show(run: Path | None, metric: str | None, as_json: bool, as_csv: bool) -> None:
    """Print a run: its stages, state, retention and files; of a sweep, a table of its runs.

    RUN is the folder of a run or of a sweep; the default is the newest run under runs/.
    """
    from geomix.cli.show import retention_csv, run_facts, show_run
    from geomix.runs.directory import newest_run, open_run
    from geomix.studies.sweep_file import folder_of
    from geomix.studies.table import entries_of, is_sweep, runs_of, sweep_table
    from geomix.util.console import Console

    if as_json and as_csv:
        raise UserError("--csv: either this or --json")
    if run is not None and run.is_file() and (folder := folder_of(run)) is not None:
        if not is_sweep(folder):
            raise UserError(f"{run}: a study; its sweep's folder {folder} is not there yet")
        run = folder
    if run is not None and is_sweep(run):
        if as_json:
            echo_json([run_facts(one) for one in runs_of(run)])
        elif as_csv:
            echo(retention_csv(runs_of(run)), end="")
        else:
            Console().print(sweep_table(entries_of(run)))
        return
    opened = open_run(run) if run else newest_run()
    if as_csv:
        echo(retention_csv([opened]), end="")
    elif as_json:
        echo_json(run_facts(opened))
    else:
        Console().print(show_run(opened, metric))


@main.group()
def config() -> None:
    """Validate a configuration, fill in its defaults, or print the schema of all keys."""


@config.command("show")
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As in train.")
@click.option("--arm", help="Only this arm [all, one YAML document each].")
def config_show(config: Path | None, overrides: tuple[str, ...], arm: str | None) -> None:
    """Print a configuration with every default filled in.

    CONFIG is a YAML file or the name of a preset; the default is the preset `demo`.
    """
    from geomix.cli.config import show as shown
    from geomix.config.load import load
    from geomix.data.sources import SOURCES

    experiment = load(_config_file(config), overrides, tuple(SOURCES))
    echo(shown(experiment, arm), end="")


@config.command("validate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def config_validate(files: tuple[Path, ...]) -> None:
    """Validate configurations: one line a file, or one a mistake and exit status 2."""
    from geomix.cli.config import validate

    for line in validate([_config_file(file) for file in files]):
        echo(line)


@config.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of a configuration, for editors."""
    from geomix.cli.config import print_schema

    print_schema()


def _config_file(given: Path | None) -> Path:
    """Return the file that CONFIG names: a path, or a preset."""
    from geomix.config.load import PRESETS, config_path

    return PRESETS / "demo.yaml" if given is None else config_path(given)
