"""Python interface for notebooks and scripts: train a run, open it, look at it, analyse it.

import geomix

run = geomix.train("demo", "stages.0.data.limit=20", out="runs/small")
run.retention()                                  # a DataFrame
angles = geomix.analyze.grad_angle(run, by="module")
angles.tables[""], angles.findings, angles.figures["plane"]
loaded = run.arm("mixed").at("A")                # the model after stage 1, with its tokenizer
facts = run.arm("mixed").examples("D_A")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geomix.measures.scores import scores_in
from geomix.runs import directory
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from geomix.analysis.driver import Outcome
    from geomix.config.load import Experiment
    from geomix.data.example import Example
    from geomix.models.load import LoadedModel
    from geomix.snapshots.records import Records

Runs = RunDirectory | str | Path | Sequence[RunDirectory | str | Path]
"""A run, or several that differ in their seeds: opened, or the paths of their folders."""


@dataclass(frozen=True, slots=True, eq=False)
class Run(RunDirectory):
    """A run on disk: finished, interrupted or still training."""

    @property
    def records(self) -> Records:
        """The recorder's snapshots as labelled arrays; with arms, each arm has its own."""
        from geomix.snapshots.records import Records

        return Records(self)

    def arm(self, name: str) -> Run:
        """Return one of the run's arms.

        Raises:
            UserError: it has no arm of that name.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise UserError(f"{self.path}: no arm '{name}'; there are: {_listed(self.arms)}")

    def retention(self) -> pd.DataFrame:
        """Return the retention matrix, tidy: a row for each arm, checkpoint and set.

        Columns: arm, checkpoint (`θ_0`, `after stage 1`, …), set, n (examples scored), and every
        score by its name (`docs/reference/scores.md`).
        """
        import pandas as pd

        from geomix.runs.retention import retention_rows

        found = pd.DataFrame([row.facts() for row in retention_rows(self)])
        return found.rename(columns={"moment": "checkpoint"})

    def at(self, checkpoint: str, *, precise: bool = False) -> LoadedModel:
        """Load the model at a checkpoint, with its tokenizer.

        Args:
            checkpoint: `0` for θ_0, `A` after stage 1, `B`, …; `A+4` is four steps into the next
                stage, if its weights were kept (`record.weights`).
            precise: in float32 and evaluation mode with eager attention, so that it can be
                differentiated twice.

        Raises:
            UserError: the run has arms, or has no weights of that checkpoint.
        """
        from geomix.experiments.past_weights import model_at

        return model_at(self._single("at"), checkpoint, precise=precise)

    def examples(self, name: str) -> list[Example]:
        """Return the examples of a set that the run trained on, such as `D_A`, `D_M` or `replay`.

        Raises:
            UserError: the run has arms, or no stage trained on such a set.
        """
        from geomix.data.provenance import read_listed

        return read_listed(self._single("examples").path, name)

    def _single(self, what: str) -> Run:
        if self.arms != [self]:
            raise UserError(
                f"{self.path}: it has arms; ask one: run.arm({self.arms[0].name!r}).{what}(…); "
                f"there are: {_listed(self.arms)}"
            )
        return self


def _listed(arms: Iterable[RunDirectory]) -> str:
    return ", ".join(arm.name for arm in arms)


def open_run(path: str | Path) -> Run:
    """Open a run.

    Args:
        path: the run's folder.

    Raises:
        UserError: there is no such folder, it is not a run, or its name is not text.
    """
    return Run(directory.open_run(path).path)


def train(
    config: str | Path | Mapping[str, Any] = "demo",
    *overrides: str,
    out: str | Path | None = None,
    arms: Sequence[str] = (),
    say: Callable[[str], object] = print,
) -> Run:
    """Train a run, as `geomix train` does.

    Args:
        config: a YAML file, the name of a preset, or a configuration as a mapping.
        overrides: as `--set` takes them: `"stages.0.mix.ratio=4"`.
        out: a new folder; None makes one under `runs/`.
        arms: only these arms; all if empty.
        say: receives lines on the run's folder, its stages, and oddities of the data.

    Returns:
        The finished run.

    Raises:
        UserError: configuration, data or model cannot be used; a line for each mistake.
    """
    from geomix.experiments.run import run_experiment
    from geomix.models.load import quiet_libraries

    experiment = _experiment(config, overrides).with_arms(arms)
    quiet_libraries()
    folder = None if out is None else Path(out)
    done = run_experiment(experiment, folder, lambda arm: _Lines(arm, say), log=say)
    return Run(done.path)


def _experiment(config: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> Experiment:
    from geomix.config.load import config_path, load, load_text
    from geomix.data.sources import SOURCES

    if isinstance(config, Mapping):
        import yaml

        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        return load_text(text, "config", overrides, tuple(SOURCES))
    return load(config_path(Path(config)), overrides, tuple(SOURCES))


@dataclass(frozen=True, slots=True)
class _Lines:
    """Progress display with one line per stage and one per set at its end."""

    arm: str
    say: Callable[[str], object]

    def stage(self, name: str, index: int, stages: int, steps: int, batch: float) -> None:  # noqa: ARG002
        """Report that a stage begins."""
        self.say(f"{self._head()}stage {index + 1} of {stages} ({name}): {steps} steps")

    def logged(self, line: Mapping[str, Any]) -> None:
        """Report an evaluation at the end of a stage."""
        if line.get("event") == "evaluation" and line.get("moment") == "end":
            known = f"exact match {line['exact_match']:.1f} %, loss {line['loss']:.4g}"
            known += "".join(f", {name} {text}" for name, text in scores_in(line).items())
            self.say(f"{self._head()}after stage {line['stage'] + 1}: {line['set']} {known}")

    def _head(self) -> str:
        return f"{self.arm}: " if self.arm else ""


class Analyze:
    """The analyses as functions of runs; analyses of other packages are attributes too."""

    def grad_angle(
        self,
        runs: Runs,
        *,
        sets: Sequence[str] = ("D_A", "D_B"),
        at: Sequence[str] = (),
        by: Literal["layer", "module", "layer-module", "head", "parameter"] = "layer",
        metric: Literal["euclidean", "adam"] = "euclidean",
        source: Literal["auto", "record", "weights"] = "auto",
        examples: int = 64,
    ) -> Outcome[Any]:
        """Measure cosines between gradients of D_A, D_B, D_M, a held-out set, and the update.

        Args:
            runs: one, or several that differ in their seeds.
            sets: the two that are compared: whose loss is in question, and what may raise it.
            at: only these checkpoints: `"0"`, `"A"`, `"A+4"`, `"+4"`.
            by: the parameter groups, one for each row of the table.
            metric: of the inner products.
            source: the data to compute from.
            examples: number per set whose single gradients are compared where weights are kept.
        """
        given = {"at": tuple(at), "by": by, "metric": metric, "source": source}
        given["sets"] = (sets,) if isinstance(sets, str) else tuple(sets)
        return self._run("grad-angle", runs, {**given, "examples": examples})

    def delta2(
        self,
        runs: Runs,
        *,
        reference: str | None = None,
        by: Literal["layer", "module", "parameter"] = "layer",
        facts: int | None = None,
        parts: bool = False,
        draws: int = 0,
        smallest: float | None = None,
        planned: int = 10,
    ) -> Outcome[Any]:
        """Split the difference in forgetting between arms into the parts of the paper's appendix A.

        Args:
            runs: one with arms, or several; those that differ in their seeds are one arm.
            reference: the arm that the others are compared with; None takes `plain`.
            by: grouping of the parameters in the table by group.
            facts: most examples of each set; None takes all.
            parts: only Δ, its parts and the exact terms.
            draws: draws of D_M, for the mean of the cross terms.
            smallest: smallest effect of interest, nats, declared before the runs.
            planned: paired seeds that a verdict needs.
        """
        given = {"reference": reference, "by": by, "facts": facts, "parts": parts, "draws": draws}
        return self._run("delta2", runs, given | {"smallest": smallest, "planned": planned})

    def forgetting(
        self,
        runs: Runs,
        *,
        stage: str | int | None = None,
        name: str = "D_A",
        by: Literal["layer", "module", "parameter"] = "layer",
        expansions: int = 16,
        segments: int = 32,
        draws: int = 3,
        facts: int | None = None,
        smallest: float | None = None,
        planned: int = 10,
    ) -> Outcome[Any]:
        """Measure how a stage changed a set's loss, and test local models of the change.

        Args:
            runs: one, or several that differ in their seeds.
            stage: number, from 1, or name; None is the last one.
            name: the set.
            by: what the path is split by.
            expansions: local expansions of the finest level, a power of two; 0 for none.
            segments: of the path, at most.
            draws: of the permuted displacement.
            facts: of each set, at most; None takes all.
            smallest: smallest effect of interest, nats, declared before the runs.
            planned: paired seeds that a verdict needs.
        """
        asked = None if stage is None else str(stage)
        given = {"stage": asked, "name": name, "by": by, "expansions": expansions}
        given |= {"segments": segments, "draws": draws, "facts": facts}
        return self._run("forgetting", runs, given | {"smallest": smallest, "planned": planned})

    def forgetting_path(
        self,
        runs: Runs,
        *,
        stage: str | int | None = None,
        name: str = "D_A",
        by: Literal["layer", "module", "parameter"] = "layer",
    ) -> Outcome[Any]:
        """Split the change of a set's loss over a stage by layer and by the source of the updates.

        Args:
            runs: recorded with `record: {preset: path}`.
            stage: number, from 1, or name; None is the last recorded one.
            name: the probe set.
            by: the parameter groups, one for each row of the table.
        """
        asked = None if stage is None else str(stage)
        return self._run("forgetting-path", runs, {"stage": asked, "name": name, "by": by})

    def __getattr__(self, name: str) -> Callable[..., Outcome[Any]]:
        """Return an analysis of another package, by its name with underscores."""
        from geomix.analysis import ANALYSES

        called = name.replace("_", "-")
        if name.startswith("_") or called not in ANALYSES:
            raise AttributeError(name)

        def analysis(runs: Runs, **options: Any) -> Outcome[Any]:
            return self._run(called, runs, options)

        analysis.__doc__ = ANALYSES[called].__doc__
        return analysis

    def __dir__(self) -> list[str]:
        """List the analyses."""
        from geomix.analysis import ANALYSES

        return [name.replace("-", "_") for name in ANALYSES]

    def _run(self, name: str, runs: Runs, options: Mapping[str, Any]) -> Outcome[Any]:
        from geomix.analysis import ANALYSES
        from geomix.analysis.driver import run

        given = [runs] if isinstance(runs, RunDirectory | str | Path) else runs
        opened = [one if isinstance(one, RunDirectory) else open_run(one) for one in given]
        analysis = ANALYSES[name]()
        return run(analysis, opened, analysis.Options(**options))


analyze = Analyze()
