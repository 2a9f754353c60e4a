"""Extensions by a user's own package, without touching geomix, through entry points."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import geomix
from geomix.analysis import ANALYSES
from geomix.cli import main
from geomix.config.load import load
from geomix.data.sources import SOURCES
from geomix.experiments.run import resume_experiment, run_experiment
from geomix.figures import FIGURES
from geomix.figures.style import save_drawing, save_figure
from geomix.figures.table import read_table
from geomix.measures.scores import SCORES
from geomix.recording.quantities import QUANTITIES
from geomix.training.methods import METHODS
from geomix.util.errors import Interrupted, UserError
from geomix.util.registry import Registry, offered

Install = Callable[[str, dict[str, str]], None]

ANALYSIS = """
from dataclasses import dataclass

from geomix.analysis.base import Analysis
from geomix.analysis.findings import Finding
from geomix.analysis.options import option
from geomix.measures.intervals import over_seeds


@dataclass(frozen=True)
class Asked:
    scale: float = option(1.0, "Factor of every count.")
    sets: tuple[str, ...] = option((), "Only these sets.", metavar="SET")


class Steps(Analysis):
    \"\"\"Count the optimiser steps of a run.\"\"\"

    name = "steps"
    Options = Asked

    def measure(self, runs, options, say):
        return [
            {"arm": arm.name, "stage": stage + 1, "steps": options.scale * steps}
            for run in runs
            for arm in run.arms
            for stage, steps in arm.steps_done().items()
        ]

    def tables(self, result, options):
        return {"": result, "first": result[:1]} if options.scale < 3 else {"": result}

    def findings(self, result, options):
        mean, _ = over_seeds([row["steps"] for row in result])
        nan = float("nan")
        said = "More steps than none."
        return [Finding("steps are taken", mean, nan, nan, "steps", 1, "undetermined", said)]

    def figures(self, result, options):
        from geomix.figures.style import new_figure

        figure = new_figure(2.0)
        figure.add_subplot().plot([row["steps"] for row in result])
        yield "", figure, result
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Write a package of one module with entry points, as pip would install it."""
    folder = tmp_path / "site"

    def write(module: str, points: dict[str, str]) -> None:
        info = folder / "theirs-0.1.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (folder / "theirs.py").write_text(module, encoding="utf-8")
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 0.1\n")
        lines = [f"[{group}]\n{entry}\n" for group, entry in points.items()]
        (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder))
        offered.cache_clear()

    yield write
    sys.modules.pop("theirs", None)
    monkeypatch.undo()
    offered.cache_clear()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> geomix.Run:
    """Two arms of a few steps, trained through the Python API."""
    stages = [
        {"data": {"source": "kvr", "limit": 6}, "stop": {"epochs": 1}},
        {"data": {"source": "arithmetic", "limit": 6}, "stop": {"epochs": 1}},
    ]
    config = {
        "model": str(tiny_model),
        "train": {"batch_size": 3},
        "stages": stages,
        "record": {"probes": 3, "at": ["boundaries", 1], "activations": 0, "lens": False},
        "arms": {"plain": {}, "slow": {"train.lr": 1e-6}},
    }
    folder = tmp_path_factory.mktemp("api") / "run"
    return geomix.train(config, "evaluate.epochs=0", out=folder, say=lambda _: None)


def test_an_analysis_of_another_package_is_a_command(install: Install, run: geomix.Run) -> None:
    install(ANALYSIS, {"geomix.analyses": "steps = theirs:Steps"})
    assert "steps" in CliRunner().invoke(main, ["analyze", "--help"]).stdout
    text = CliRunner().invoke(main, ["analyze", "steps", "--help"]).stdout
    assert "Count the optimiser steps of a run." in text
    assert "--scale FLOAT" in text
    done = CliRunner().invoke(main, ["analyze", "steps", str(run.path), "--scale", "2"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("steps are taken: +4 steps, n = 1: undetermined.\n")
    saved = json.loads((run.analysis_folder / "steps.json").read_text())
    assert [row["steps"] for row in saved["tables"]["steps"]] == [4.0] * 4
    assert saved["files"] == [
        *("analysis/steps.csv", "analysis/steps.json", "analysis/steps.txt"),
        *("analysis/steps_first.csv", "figures/steps.csv", "figures/steps.pdf"),
        "figures/steps.png",
    ]
    assert all((run.path / name).is_file() for name in saved["files"])
    again = CliRunner().invoke(main, ["analyze", "steps", str(run.path), "--scale", "3", "--json"])
    assert json.loads(again.stdout)["findings"][0]["estimate"] == 6.0
    assert not (run.analysis_folder / "steps_first.csv").exists(), "of the call before"
    assert "steps" in dir(geomix.analyze)
    assert geomix.analyze.steps(run, scale=1.0).tables[""]["steps"].sum() == 8.0


SOURCES_MODULE = """
from geomix.data.example import Example
from geomix.data.sources.base import Source, generated


def numbers(count, seed, split):
    first = {"train": 0, "id": 1000, "held-out": 2000}[split]
    return [Example(f"After {first + i} comes", f"{first + i + 1}") for i in range(count)]


def echoes(count, seed, split):
    return [Example(f"Say {i} again: {i}", str(i)) for i in range(count)]


def source(name, kind, examples):
    said = {"licence": "public domain", "prompt": "After {n} comes", "prompt_from": "our own"}
    return Source(name=name, kind=kind, loader=generated(examples), **said)


SUCCESSORS = source("successors", "factoid", numbers)
ECHOES = source("echoes", "mixing", echoes)
"""


def test_a_dataset_and_a_mixing_source_of_another_package(
    install: Install, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = "successors = theirs:SUCCESSORS\nechoes = theirs:ECHOES"
    install(SOURCES_MODULE, {"geomix.sources": points})
    monkeypatch.chdir(tmp_path)
    assert "successors" in CliRunner().invoke(main, ["data", "list"]).stdout
    config = {
        "model": str(tiny_model),
        "train": {"batch_size": 4},
        "stages": [
            {
                "data": {"source": "successors", "limit": 4},
                "mix": {"source": "echoes", "ratio": 1},
                "stop": {"epochs": 1},
            }
        ],
        "record": {"at": ["boundaries"], "probes": 2},
    }
    Path("theirs.yaml").write_text(json.dumps(config), encoding="utf-8")
    plan = CliRunner().invoke(main, ["train", "theirs.yaml", "--dry-run"])
    assert "successors" in plan.stdout, plan.output
    run = geomix.train("theirs.yaml", out="run", say=lambda _: None)
    assert run.examples("D_M")[0].prompt == "Say 0 again: 0"
    assert sorted(e.target for e in run.examples("D_A")) == ["1", "2", "3", "4"]
    held = json.loads(run.probes_file.read_text())["held-out"]["examples"]
    assert held[0]["prompt"] == "After 2000 comes"


METHOD = """
import torch

from geomix.config.methods import MethodOptions
from geomix.training.methods.base import Method, MethodCost


class Options(MethodOptions):
    floor: float = 0.0


class Anchor(Method):
    \"\"\"Pull the weights towards those that the stage began with.\"\"\"

    Options = Options

    def begin_stage(self, stage):
        named = stage.loaded.model.named_parameters()
        self.start = {n: p.detach().clone() for n, p in named if p.requires_grad}
        self.seen = (sorted(stage.earlier), sorted(stage.sets), stage.index)

    def begin_step(self, step):
        parts, whole = step.by_source(), step.recompute()
        for name, gradient in whole.items():
            summed = sum(part.get(name, 0) for part in parts.values())
            torch.testing.assert_close(summed, gradient, rtol=1e-4, atol=1e-6)
        self.whole = whole

    def transform_gradients(self, gradients):
        for name, gradient in gradients.items():
            if name in self.whole:
                assert torch.equal(gradient, self.whole[name]), "the same batch, the same dropout"

    def after_update(self, parameters):
        for name, parameter in parameters.items():
            parameter.lerp_(self.start[name], self.options.strength)
        gaps = [(p - self.start[n]).norm() for n, p in parameters.items()]
        self.distance = float(torch.stack(gaps).norm())

    def logged(self):
        return {"distance": self.distance}

    def state(self):
        return self.start

    def restore(self, state):
        self.start = dict(state)

    @classmethod
    def cost(cls, options):
        return MethodCost(copies=1, passes=3)
"""


def method_config(model: Path, strength: float) -> dict[str, Any]:
    """The second stage has the method, mixing and dropout."""
    stage = {"stop": {"epochs": 2}, "train": {"batch_size": 4, "lr": 1e-2}}
    mix = {"source": "random-words", "ratio": 1, "words": 3}
    method = {"name": "anchor", "strength": strength, "floor": 0.5}
    return {
        "model": str(model),
        "stages": [
            {"data": {"source": "kvr", "limit": 6}, **stage},
            {"data": {"source": "arithmetic", "limit": 6}, "mix": mix, "method": method, **stage},
        ],
        "record": None,
        "evaluate": {"epochs": 0},
        "checkpoint": {"steps": 2},
    }


def step_lines(run: geomix.Run) -> list[dict[str, Any]]:
    return [line for line in run.metrics() if line["event"] == "step"]


def test_a_method_of_another_package(
    install: Install, dropout_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strength 0 is plain training, 1 keeps the weights; a resumed run is the same bit for bit."""
    install(METHOD, {"geomix.methods": "anchor = theirs:Anchor"})
    monkeypatch.chdir(tmp_path)
    for strength in (0, 0.5, 1):
        file = Path(f"s{strength}.yaml")
        file.write_text(json.dumps(method_config(dropout_model, strength)), encoding="utf-8")
    text = CliRunner().invoke(main, ["train", "s0.5.yaml", "--dry-run"]).stdout
    assert (
        "Method of stage 2 (arithmetic): anchor (strength 0.5): 1 more copies of the weights, "
        "3 more passes a step" in " ".join(text.split())
    )
    runs = {s: geomix.train(f"s{s}.yaml", out=f"run{s}", say=str) for s in (0, 0.5, 1)}
    plain = geomix.train("s0.yaml", "stages.1.method=null", out="plain", say=str)
    assert [*plain.metrics()] == [*runs[0].metrics()]
    assert "method" not in plain.resolved()["config"]["stages"][1]
    assert runs[0.5].resolved()["config"]["stages"][1]["method"] == [
        {"name": "anchor", "strength": 0.5, "floor": 0.5}
    ]
    kept = [line["methods"]["anchor.distance"] for line in step_lines(runs[1])[4:]]
    assert kept == [0.0] * len(kept)
    before, after = (runs[1].at(name).model.state_dict() for name in ("A", "B"))
    assert all(torch.equal(before[name], value) for name, value in after.items())
    moved = [line["methods"]["anchor.distance"] for line in step_lines(runs[0.5])[4:]]
    assert min(moved) > 0

    asked = iter([False] * 6 + [True])
    with pytest.raises(Interrupted):
        run_experiment(
            load(Path("s0.5.yaml"), (), tuple(SOURCES)),
            Path("cut"),
            lambda _: Silent(),
            lambda: next(asked, True),
        )
    resume_experiment(Path("cut"), lambda _: Silent(), log=str)
    assert step_lines(geomix.open_run("cut")) == step_lines(runs[0.5])


class Silent:
    """A progress display of nothing."""

    def stage(self, *_: Any) -> None: ...

    def logged(self, _: Any) -> None: ...


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("anchr", r"no method is called 'anchr'. There are: none"),
        ({"strength": 1}, "give a method's name, or a mapping with `name`"),
        (["none", "none"], "none is given twice"),
        ({"name": "none", "strength": -1}, "strength"),
        ({"name": "none", "strngth": 1}, "strngth"),
    ],
)
def test_a_mistake_in_a_method_is_told_with_its_line(
    method: Any, told: str, tiny_model: Path, tmp_path: Path
) -> None:
    config = method_config(tiny_model, 0)
    config["stages"][1]["method"] = method
    with pytest.raises(UserError, match=r"config:\d+ stages\[1\]\.method") as raised:
        geomix.train(config, out=tmp_path / "run")
    assert re.search(told, str(raised.value))


SCORE = """
import math

from geomix.measures.scores.base import Score, ScoreCost


class Next(Score):
    \"\"\"Mean nats by which the own answer beats the set's next one after its prompt.\"\"\"

    name = "next"
    heading = "next"
    axis = "nats above the next answer"
    unit = "nats"
    column = "next"
    brings = ("short",)

    def ask(self, asked, which):
        pairs = [[i, (i + 1) % len(asked.examples)] for i in which]
        told = asked.log_probabilities(which, pairs)
        return [{"next": float(own - other)} for own, other in told]

    def cost(self, examples):
        return ScoreCost(len(examples), 2 * len(examples))


class Short(Score):
    \"\"\"Share of answers that take less than eight bits.\"\"\"

    name = "short"
    heading = "short %"
    axis = "answers of less than eight bits (%)"
    within = True
    column = "short"
    part_of = "next"

    def of_example(self, answer):
        return {"short": answer.nll < 8 * math.log(2), "nll": "is not overwritten"}
"""


def test_a_score_of_another_package(
    install: Install, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(SCORE, {"geomix.scores": "next = theirs:Next\nshort = theirs:Short"})
    monkeypatch.chdir(tmp_path)
    config = {
        "model": str(tiny_model),
        "train": {"batch_size": 3},
        "stages": [{"data": {"source": "kvr", "limit": 6}, "stop": {"epochs": 2}}],
        "evaluate": {"scores": ["next"]},
        "record": None,
    }
    Path("scores.yaml").write_text(json.dumps(config), encoding="utf-8")
    plan = CliRunner().invoke(main, ["train", "scores.yaml", "--dry-run"])
    told = " ".join(plan.stdout.split())
    assert "Score next: at the boundaries of all stages 24 more answers" in told, plan.output
    schema = CliRunner().invoke(main, ["config", "schema"]).stdout
    assert '"next"' in schema
    said: list[str] = []
    run = geomix.train("scores.yaml", out="run", say=said.append)
    table = run.retention()
    assert re.search(rf", next {table['next'].iloc[-1]:.4g}$", said[-1]), said
    lines = [line for line in run.metrics() if line["event"] == "evaluation"]
    assert [line["moment"] for line in lines if "next" in line] == ["start", "end"]
    assert all("short" in line for line in lines), "within a stage too"
    start = (run.path / "stages/0-kvr/eval/start.jsonl").read_text()
    ends = [json.loads(line) for line in start.splitlines()]
    assert [*ends[0]][-4:] == ["nll", "tokens", "short", "next"]
    mean = sum(row["next"] for row in ends) / 6
    assert lines[0]["next"] == pytest.approx(mean)
    shown = CliRunner().invoke(main, ["show", "run"]).stdout
    assert re.search(r"exact % +next +loss", shown), shown
    assert ",next," in CliRunner().invoke(main, ["show", "run", "--csv"]).stdout
    assert "next" in CliRunner().invoke(main, ["show", "--help"]).stdout
    drawn = CliRunner().invoke(main, ["figure", "retention", "run", "--metric", "next"])
    assert drawn.exit_code == 0, drawn.output
    install("", {"geomix.analyses": ""})  # the package is gone: the run is read all the same
    again = CliRunner().invoke(main, ["show", "run"])
    assert again.exit_code == 0, again.output


QUANTITY = """
from geomix.config.quantities import QuantityOptions
from geomix.recording.quantities.base import Quantity, QuantityCost
from geomix.snapshots.variables import Variable


class Options(QuantityOptions):
    most: int = 3


class Choices(Quantity):
    \"\"\"The likeliest tokens, and the norm of the gradient.\"\"\"

    Options = Options
    variables = (
        Variable("likeliest", ("position", "choice"), "int64", "1", "ids of the likeliest tokens"),
        Variable("certain", ("example",), "bool", "1", "whether every token is the likeliest"),
        Variable("norm", ("parameter",), "float64", "nat", "of the set's gradient"),
    )
    coordinates = {"choice": "0 is the likeliest"}

    def lengths(self):
        return {"choice": self.options.most}

    def collect(self, seen):
        best = seen.logits.topk(self.options.most).indices
        wrong = best[:, 0] != seen.batch.targets
        return {"likeliest": best, "certain": seen.batch.per_example(wrong) == 0}

    def finish(self, probe):
        return {"norm": [0.0 if g is None else float(g.norm()) for g in probe.gradients.values()]}

    @classmethod
    def cost(cls, options):
        return QuantityCost(passes=0.5)
"""


def test_a_quantity_of_another_package(
    install: Install, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(QUANTITY, {"geomix.quantities": "choices = theirs:Choices"})
    monkeypatch.chdir(tmp_path)
    record = {"at": ["boundaries"], "probes": 4, "lens": False, "activations": 0}
    config = {
        "model": str(tiny_model),
        "train": {"batch_size": 3},
        "stages": [{"data": {"source": "kvr", "limit": 5}, "stop": {"epochs": 1}}],
        "record": {**record, "batch_size": 3, "quantities": [{"name": "choices", "most": 2}]},
    }
    Path("theirs.yaml").write_text(json.dumps(config), encoding="utf-8")
    plan = CliRunner().invoke(main, ["train", "theirs.yaml", "--dry-run", "--json"])
    disk = json.loads(plan.stdout)["cost"]["arms"][""]["record"]
    assert disk["passes"] == 24, "2 snapshots of 2 sets of 4, and half as many again"
    run = geomix.train("theirs.yaml", out="run", say=str)
    group = "probes/D_A/quantities/choices"
    likeliest = run.records.series(f"{group}/likeliest")
    assert likeliest.dims == ("snapshot", "position", "choice")
    certain = run.records.series(f"{group}/certain")
    assert certain.values.tolist() == run.records.probes("D_A").exact.values.tolist()
    norms = run.records.series(f"{group}/norm").sel(snapshot="stage0-step000000")
    squares = run.records.inner_products.sel(set="D_A", other_set="D_A")[0]
    assert (norms**2).values == pytest.approx(squares.values, rel=1e-5)
    assert norms.parameter.values.tolist() == squares.parameter.values.tolist()
    held = sum(
        run.records[place.name][f"probes/{name}/quantities/choices"][one].nbytes
        for place in run.records.snapshots
        for name in ("D_A", "held-out")
        for one in ("likeliest", "certain", "norm")
    )
    assert disk["disk"]["quantities"] == held
    out = run.records.export("tables")
    assert any("quantities" in file.name for file in out)
    with pytest.raises(UserError, match=r"no quantity is called 'choicse'; did you mean choices"):
        geomix.train({**config, "record": {"quantities": "choicse"}}, out="no")


FIGURE = """
from geomix.figures.style import new_figure
from geomix.figures.table import TableFigure


def draw(rows):
    figure = new_figure(2.0)
    figure.add_subplot().plot([row["step"] for row in rows], [row["loss"] for row in rows])
    return figure


LOSSES = TableFigure("Loss by step.", ("step", "loss"), draw)
"""


def test_a_figure_of_another_package(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(FIGURE, {"geomix.figures": "losses = theirs:LOSSES"})
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text("step,loss\n0,2.5\n1,\n2,1.0\n", encoding="utf-8")
    assert "losses" in CliRunner().invoke(main, ["figure", "--help"]).stdout
    done = CliRunner().invoke(main, ["figure", "losses", "mine.csv"])
    assert done.stdout.split() == ["mine.pdf", "mine.png"], done.output
    Path("other.csv").write_text("step\n0\n", encoding="utf-8")
    done = CliRunner().invoke(main, ["figure", "losses", "other.csv"])
    assert done.exit_code == 2
    assert done.stderr == "geomix: other.csv: no column loss; there are: step\n"


def test_a_figure_is_drawn_again_from_its_table(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"arm": "a", "set": "D_A", "layer": layer, "block": block, "part": part}
        | {"change": 0.1 * len(layer) - 0.2, "half_width": float("nan")}
        for layer in ("embedding", "0", "1")
        for block in ("all", "mlp")
        for part in ("total", "D_B")
    ]
    known = FIGURES["forgetting-path"]
    first = save_figure(known.draw(rows), rows, tmp_path, "first")
    again = save_drawing(known.draw(read_table(first[2], known.columns)), tmp_path / "again")
    assert again[1].read_bytes() == first[1].read_bytes()


def test_an_unknown_name_gets_the_closest_one() -> None:
    done = CliRunner().invoke(main, ["analyze", "grad-angel"])
    assert done.exit_code == 2
    assert done.stderr == (
        "geomix: no analysis is called 'grad-angel'; did you mean grad-angle? "
        f"There are: {', '.join(ANALYSES)}\n"
    )
    with pytest.raises(AttributeError):
        geomix.analyze.grad_angel  # noqa: B018


def test_a_package_that_cannot_be_imported_is_named(install: Install) -> None:
    install("import no_such_module", {"geomix.analyses": "broken = theirs:Broken"})
    assert "broken" in ANALYSES
    with pytest.raises(UserError, match=r"analysis 'broken': theirs offers it and cannot be imp"):
        ANALYSES["broken"]


def test_geomix_own_entry_wins_over_one_of_the_same_name(install: Install) -> None:
    install("Other = 1", {"geomix.analyses": "grad-angle = theirs:Other"})
    assert [*ANALYSES].count("grad-angle") == 1
    assert ANALYSES.package("grad-angle") == "geomix"


def test_every_own_entry_can_be_imported() -> None:
    registries: list[Registry[Any]] = [ANALYSES, FIGURES, METHODS, QUANTITIES, SCORES, SOURCES]
    for registry in registries:
        assert len(registry) >= len(registry.own) > 0
        for name, entry in registry.items():
            assert entry.__doc__, name
    assert all(source.name == name for name, source in SOURCES.items())
    assert all(score.name == name for name, score in SCORES.items())
    for name, score in SCORES.items():
        assert len(score.heading) <= 8, name
        assert all(SCORES[part].part_of == name for part in score.brings)
        assert not score.part_of or name in SCORES[score.part_of].brings
