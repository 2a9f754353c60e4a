"""The documentation is true: its examples load, its commands run, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import pytest
import yaml
from click.testing import CliRunner
from matplotlib.figure import Figure

from geomix.cli import main
from geomix.config.load import load
from geomix.config.run import RunConfig
from geomix.data.sources import SOURCES
from geomix.figures import FIGURES
from geomix.studies.claims import FILE, load_claims
from geomix.studies.sweep_file import load_study
from tests.documentation import (
    DOCS,
    PAGES,
    README,
    ROOT,
    Block,
    Command,
    anchors,
    blocks,
    commands,
    inline_code,
    links,
    text_of,
)
from tests.members import train_members_here
from tests.recording.architectures import ARCHITECTURES

COMMANDS = [command for page in PAGES for command in commands(page)]
EXAMPLES = [block for page in PAGES for block in blocks(page, "yaml")]
PYTHON = [block for page in PAGES for block in blocks(page, "python")]
TUTORIAL = DOCS / "tutorials" / "own-facts.md"


def generator() -> ModuleType:
    """docs/generate.py, which is no module of the package."""
    return script("generate")


def script(name: str) -> ModuleType:
    """A script of docs/."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- what is written down ---


def test_the_readme_is_short_and_leads_to_the_rest() -> None:
    assert len(text_of(README).splitlines()) <= 150
    named = {link.partition("#")[0] for link in links(README)}
    asked = ["explanation/loss-reduction", "reference/snapshots", "how-to/own-data"]
    asked += ["explanation/cosines", "reference/extension-points", "reference/cli"]
    assert {f"docs/{page}.md" for page in asked} <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), link
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    folders, endings = "geomix|tests|analyses|benchmarks|docs|data", "py|md|yaml|png|csv"
    for name in re.findall(rf"(?<![\w/.…])(?:{folders})/[\w./-]*\.(?:{endings})", text_of(page)):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    makefile = text_of(ROOT / "Makefile")
    for target in set(re.findall(r"`make ([a-z-]+)", text_of(page))):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_source_and_every_tested_family_is_named() -> None:
    sources = text_of(DOCS / "reference" / "data-sources.md")
    assert [name for name in SOURCES if f"| `{name}` |" not in sources] == []
    models = text_of(DOCS / "reference" / "supported-models.md")
    assert [name for name in ARCHITECTURES if f"`{name}`" not in models] == []


def test_generated_pages_are_fresh() -> None:
    assert generator().stale() == [], "run python docs/generate.py"


def test_a_page_does_not_depend_on_what_ran_before() -> None:
    """Click keeps the help option that a command made first, in whatever context that was."""
    command = click.Command("new", help="Do it.")
    command.get_params(click.Context(command))
    group = click.Group(
        commands=[command], context_settings={"help_option_names": ["-h", "--help"]}
    )
    module = generator()
    (context,) = module._contexts(group.make_context("all", [], resilient_parsing=True))
    assert context.command_path == "all new"
    assert "| `-h, --help` | Show this message and exit. |" in [*module._command(context)]


def test_a_stale_page_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = generator()
    monkeypatch.setattr(module, "REFERENCE", tmp_path)
    assert module.run([]) == 0
    assert module.run(["--check"]) == 0
    (tmp_path / "cli.md").write_text("old", encoding="utf-8")
    assert module.run(["--check"]) == 1


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("explanation/x.md", "../../geomix/data/batch.py#a", "../source/geomix/data/batch.py#a"),
        ("index.md", "../CONTRIBUTING.md", "source/CONTRIBUTING.md"),
        ("index.md", "explanation/cosines.md", "explanation/cosines.md"),
        ("how-to/x.md", "../../benchmarks", "../source/benchmarks/README.md"),
        ("source/CONTRIBUTING.md", "docs/reference/cli.md", "../reference/cli.md"),
        ("source/CONTRIBUTING.md", "data/base/README.md", "data/base/README.md"),
    ],
)
def test_the_site_has_copies_of_what_is_linked(page: str, link: str, there: str) -> None:
    turned = script("hooks").on_page_markdown(
        f"[it]({link})", page=SimpleNamespace(file=SimpleNamespace(src_uri=page))
    )
    assert turned == f"[it]({there})"


@pytest.mark.slow  # seven seconds
def test_the_site_builds(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "explanation" / "cosines.html").is_file()
    assert (tmp_path / "source" / "geomix" / "data" / "batch.py").is_file()


# --- configurations ---


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.name)
def test_every_example_configuration_is_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(block.text, encoding="utf-8")
    keys = yaml.safe_load(block.text)
    if "claims" in keys:
        assert load_claims(file.rename(tmp_path / FILE).parent).claims
    elif "base" in keys:
        (tmp_path / "my.yaml").write_text(OWN.replace("MODEL", "builtin"), encoding="utf-8")
        others = [
            one
            for one in EXAMPLES
            if one.page == block.page and not re.search("^(base|claims):", one.text, re.MULTILINE)
        ]
        (tmp_path / "stage2.yaml").write_text(others[-1].text if others else "", encoding="utf-8")
        assert load_study(file, sources=tuple(SOURCES)).members
    else:
        assert load(file, sources=tuple(SOURCES)).arms


def first_example(page: str, key: str) -> dict[str, object]:
    found = [block for block in blocks(DOCS / page, "yaml") if key in block.text]
    example: dict[str, object] = yaml.safe_load(found[0].text)
    return example


def test_examples_say_what_the_pages_say(tmp_path: Path) -> None:
    def arms(page: str, key: str) -> dict[str, RunConfig]:
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(first_example(page, key)), encoding="utf-8")
        return load(file, sources=tuple(SOURCES)).arms

    known = arms("how-to/familiar-facts.md", "known:")[""]
    assert known.evaluate.sets["known"].familiar != known.stages[0].data.familiar
    assert arms("how-to/train-a-stage.md", "lora:")[""].stages[1].train.lora is not None
    taken = arms("how-to/train-a-stage.md", "from:")[""]
    assert [stage.from_ for stage in taken.stages] == ["runs/first", None]
    three = arms("explanation/why-a-control.md", "passage_free")
    assert [name for name, arm in three.items() if arm.stages[0].mix is None] == ["plain"]
    assert three["control"].stages[0].mixes["D_M"].passage_free


def test_the_readme_s_example_has_three_arms(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(blocks(README, "yaml")[0].text, encoding="utf-8")
    arms = load(file, sources=tuple(SOURCES)).arms
    assert list(arms) == ["plain", "mixed", "control"]
    assert [stage.train.lr for stage in arms["plain"].stages] == [4e-3, 2e-3]
    assert [arm.stages[0].mix is None for arm in arms.values()] == [True, False, False]
    assert arms["mixed"].stages[0].data.limit is None  # all rows of the file but the last tenth


def test_a_sweep_has_the_members_that_its_page_names(tmp_path: Path) -> None:
    page = DOCS / "how-to" / "sweeps.md"
    (tmp_path / "my.yaml").write_text(OWN.replace("MODEL", "builtin"), encoding="utf-8")
    (tmp_path / "study.yaml").write_text(blocks(page, "yaml")[0].text, encoding="utf-8")
    members = load_study(tmp_path / "study.yaml", sources=tuple(SOURCES)).members
    assert len(members) == 9
    assert members[2].run.path == Path("runs/study/seed=0,stages.0.mix.ratio=2")
    assert str(members[2].run.path) in text_of(page)


def test_every_key_that_is_named_exists() -> None:
    module = generator()
    keys = {f"{title}.{key}" for title, _, model in module._SECTIONS for key in model.model_fields}
    keys |= {f"stages.N.{key.removeprefix('stages.')}" for key in keys}
    roots = "train|record|evaluate|checkpoint|stop|mix|replay|data"
    for page in PAGES:
        for code in inline_code(page):
            key = re.match(rf"(?:stages\.\d+\.)?((?:{roots})\.[a-z_]+)", code)
            if key and not re.search(r"/|\.(json|yaml|py)\b", code):
                assert key[1] in keys, f"{page.name}: {code}"


# --- commands ---


def parsed(
    words: tuple[str, ...] | list[str], *, partly: bool = False
) -> tuple[str, click.Context]:
    """The command that geomix would run, and its parameters.

    Args:
        words: what geomix is given.
        partly: whether arguments may be missing.

    Raises:
        click.UsageError: there is no such command or option, or a value is none.
    """
    command: click.Command = main
    context = main.make_context("geomix", [], resilient_parsing=True)
    left, names = list(words), list[str]()
    while isinstance(command, click.Group):
        if not left or left[0].startswith("-"):
            return " ".join(names), context
        name = left.pop(0)
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command '{name}'")
        command = found
        names.append(name)
    return " ".join(names), command.make_context(
        names[-1], left, parent=context, resilient_parsing=partly
    )


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_could_be_given(command: Command) -> None:
    given = command.geomix
    first, *rest = command.words
    if given is not None:
        parsed(given)
    elif first == "make":
        target = next(word for word in rest if "=" not in word)
        assert re.search(rf"^{target}:", text_of(ROOT / "Makefile"), flags=re.MULTILINE)
    elif first in ("python", "pytest"):
        scripts = [word.partition("::")[0] for word in rest if re.search(r"\.py\b", word)]
        assert all((ROOT / script).is_file() for script in scripts), command
    else:
        assert first in ("pip", "git", ".", "ruff", "mypy", "mkdocs", "huggingface-cli", "hf"), (
            first
        )


def test_every_command_of_the_tool_is_shown_somewhere() -> None:
    shown = {parsed(command.geomix)[0] for command in COMMANDS if command.geomix is not None}
    whole = main.make_context("geomix", [], resilient_parsing=True)
    paths = [context.command_path for context in generator()._contexts(whole)]
    there = {path.removeprefix("geomix ") for path in paths}
    redrawing = {f"figure {name}" for name in FIGURES}
    assert there - redrawing <= shown
    page = (ROOT / "docs" / "explanation" / "figures.md").read_text(encoding="utf-8")
    assert [name for name in redrawing if f"`geomix {name}`" not in page] == []


def test_every_command_in_a_sentence_exists() -> None:
    for page in PAGES:
        for code in inline_code(page):
            words = code.split()
            if words[0] != "geomix" or "…" in code:
                continue
            plain = [word for word in words[1:] if not word.startswith("-")]
            name, context = parsed(plain[:2], partly=True)
            known = {option for one in context.command.params for option in one.opts}
            assert {w for w in words if w.startswith("--")} <= known | {"--help", "--version"}, code
            assert name or set(words) <= {"geomix", "--help", "--version"}, code


OWN = """
model: MODEL
train: {batch_size: 4, lr: 1e-3}
stages:
  - data: {source: kvr, limit: 4}
    mix: {source: random-words, ratio: 1, words: 4}
    stop: {steps: 2}
  - data: {source: triples, limit: 4}
    stop: {steps: 2}
record:
  {at: [boundaries, 1], probes: 4, weights: true, mix: {source: random-words, words: 4}}
evaluate: {epochs: 0}
"""

ARMS = """
arms:
  plain: {stages.0.mix: null}
  mixed: {}
  control: {stages.0.mix.passage_free: true}
"""

FACTS = "prompt,target,question,answer\n" + "".join(
    f"Where is house {i}?,street {i},Where is house {i}?,street {i}\n" for i in range(20)
)
TOWNS = "town,founder,good\n" + "".join(f"Town{i},Person {i},salt\n" for i in range(20))


@dataclass
class Field:
    """A folder with everything that the pages' commands name, as small as can be.

    Attributes:
        path: the folder.
        model: a tiny model's.
        done: what was run there already, with its output.
    """

    path: Path
    model: Path
    done: dict[tuple[str, ...], str] = field(default_factory=dict)

    def run(self, *words: str) -> str:
        """Run geomix in this process, once for the same words."""
        if words not in self.done:
            result = CliRunner().invoke(main, list(words), env={"COLUMNS": "100"})
            told = f"geomix {' '.join(words)}\n{result.output}"
            assert result.exit_code == 0, f"{told}\n{result.exception!r}"
            self.done[words] = result.output
        return self.done[words]


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Go into a folder; figures are made, but neither laid out nor drawn."""
    patch.chdir(folder)
    patch.setattr(Figure, "savefig", lambda _, file, **__: Path(file).write_bytes(b"drawn"))
    patch.setattr(Figure, "draw_without_rendering", lambda _: None)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """The runs that the pages speak of: `runs/demo` with three arms, `runs/path`, seeds, …"""
    here = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        enter(here, patch)
        train_members_here(patch)
        made = Field(here, tiny_model)
        own = OWN.replace("MODEL", str(tiny_model))
        (here / "my.yaml").write_text(own, encoding="utf-8")
        (here / "demo.yaml").write_text(own + ARMS, encoding="utf-8")
        study = blocks(DOCS / "how-to" / "sweeps.md", "yaml")[0].text
        short = study.replace("[0, 1, 2]", "[0]").replace("limit: 50", "limit: 8")
        (here / "study.yaml").write_text(short, encoding="utf-8")
        seeds = blocks(DOCS / "how-to" / "claims.md", "yaml")[1].text
        (here / "seeds.yaml").write_text(seeds, encoding="utf-8")
        stage2, table2 = blocks(DOCS / "tutorials" / "table-2-on-8-gpus.md", "yaml")
        (here / "stage2.yaml").write_text(stage2.text, encoding="utf-8")
        (here / "table2.yaml").write_text(table2.text, encoding="utf-8")
        (here / "facts.csv").write_text(FACTS, encoding="utf-8")
        (here / "founders.csv").write_text(TOWNS, encoding="utf-8")
        (here / "models").mkdir()
        (here / "models" / "llama").symlink_to(tiny_model)
        made.run("train", "demo.yaml", "--out", "runs/demo", "--quiet")
        path = ["record.preset=path", "record.weights=false", 'record.at=["every:1"]']
        changes = [word for one in [*path, "train.update_shares=true"] for word in ("--set", one)]
        made.run("train", "my.yaml", *changes, "--out", "runs/path", "--quiet")
        made.run("train", "my.yaml", "--set", "record=null", "--out", "runs/bare", "--quiet")
        for seed in range(3):
            few = [f"seed={seed}", "record.at=[boundaries, 1]", "record.weights=false"]
            few += ["record.lens=false", "record.activations=0"]
            given = [word for one in few for word in ("--set", one)]
            out = ("--out", f"runs/s{seed}", "--quiet")
            made.run("train", "my.yaml", *given, *out)
        yield made


RUNS = ("show", "export", "figure", "analyze", "record", "config", "data", "sweep")
"""The commands that are run as they stand, but for FEWER; `train` is run by the tutorial."""

FEWER = {
    ("analyze", "forgetting"): ("--expansions", "2", "--draws", "1"),
    ("analyze", "curvature"): ("--products", "4"),
}
"""Options that make a command cheaper, which no page gives it."""

SAME = {"runs/mine": "runs/s0", "runs/seeds": "runs/demo"}
"""Folders that pages name → what stands for them."""

PASSAGES = "{source: random-words, ratio: 1, words: 4"
TINY = (
    *("--set", "stages.0.stop.steps=2", "--set", "stages.1.stop.steps=2"),
    *("--set", "stages.0.data.limit=6", "--set", "stages.1.data.limit=6"),
    *("--set", "record.probes=4", "--set", "record.mix.words=4"),
    *("--set", f"arms.mixed.stages.0.mix={PASSAGES}}}"),
    *("--set", f"arms.control.stages.0.mix={PASSAGES}, passage_free: true}}"),
)


def run_of(command: Command, here: Path) -> str:
    """Return the run for RUN; each offline recording gets a fresh run without records."""
    if command.block.page.name == "grad-angle.md":
        return "runs/s0"
    if command.block.page.name != "record-afterwards.md":
        return "runs/demo"
    copy = f"runs/bare-{len(list(here.glob('runs/bare-*')))}"
    shutil.copytree(here / "runs" / "bare", here / copy)
    return copy


def runnable() -> list[Command]:
    found = []
    for command in COMMANDS:
        given = command.geomix
        known = given and given[0] in RUNS and command.block.page != TUTORIAL
        if known and not command.marked and "slurm" not in command.words:
            found.append(command)
    return found


@pytest.mark.parametrize("command", runnable(), ids=str)
def test_commands_run(command: Command, trained: Field) -> None:
    given = command.geomix
    assert given is not None
    words = [run_of(command, trained.path) if word == "RUN" else word for word in given]
    words = [SAME.get(word, word) for word in words]
    if words == ["analyze", "grad-angle"]:
        words.append("runs/s0")  # not again for the newest run
    if words[:2] == ["data", "overlap"] and "my.yaml" not in words:
        pytest.skip("of a preset whose data are on the hub")
    trained.run(*words, *FEWER.get((words[0], words[1] if words[1:] else ""), ()))


def configured() -> list[Command]:
    """Return the commands that train an own configuration or a preset, with their options."""
    return [
        c for c in COMMANDS if c.geomix and c.geomix[0] == "train" and "--resume" not in c.words
    ]


@pytest.mark.parametrize("command", configured(), ids=str)
def test_what_is_trained_is_a_valid_configuration(command: Command, trained: Field) -> None:
    if command.block.page == TUTORIAL:
        pytest.skip("the tutorial is run whole")
    assert command.geomix is not None
    _, context = parsed(command.geomix)
    file = context.params["config"]
    changes = [word for value in context.params["overrides"] for word in ("--set", value)]
    arms = [word for value in context.params.get("only") or () for word in ("--arm", value)]
    if arms or "arms." in " ".join(changes):
        file = Path("demo.yaml")
    trained.run("config", "show", *([str(file)] if file else []), *changes, *arms)


def test_resume_leaves_a_finished_run_alone(trained: Field) -> None:
    trained.run("train", "--resume", "runs/demo")


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.name)
def test_python_runs(block: Block, trained: Field) -> None:
    if block.page == TUTORIAL and "csv" in block.text:
        pytest.skip("the tutorial is run whole")
    exec(compile(block.text, block.name, "exec"), {"__name__": "docs"})


def test_the_verdicts_that_are_printed_are_those_of_the_comments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    block = blocks(DOCS / "explanation" / "verdicts.md", "python")[0]
    exec(compile(block.text, block.name, "exec"), {})
    assert capsys.readouterr().out.split() == re.findall(r"# (\w+)", block.text)


def test_the_new_source_is_one(trained: Field) -> None:
    block = blocks(DOCS / "reference" / "extension-points.md", "python")[0]
    names: dict[str, object] = {}
    exec(compile(block.text, block.name, "exec"), names)
    examples = names["examples"]
    assert callable(examples)
    ten, five = examples(10, 3, "train"), examples(5, 3, "train")
    assert ten[:5] == five
    assert not {e.prompt for e in ten} & {e.prompt for e in examples(10, 3, "held-out")}


@pytest.mark.slow  # ten commands one after the other; each is parsed, and its YAML loaded, above
def test_the_tutorial_of_own_facts(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(tmp_path, monkeypatch)
    field = Field(tmp_path, tiny_model)
    python = blocks(TUTORIAL, "python")
    exec(compile(python[0].text, python[0].name, "exec"), {})
    (tmp_path / "towns.yaml").write_text(blocks(TUTORIAL, "yaml")[0].text, encoding="utf-8")
    model = ("--set", f"model={tiny_model}")
    for command in commands(TUTORIAL):
        given = command.geomix
        assert given is not None, command
        trains = given[0] == "train" and "--resume" not in given
        if "runs/towns-1" in given or "runs/towns-2" in given:
            continue  # more seeds, as the page of grad-angle has them
        told = field.run(*given, *(model + TINY if trains else ()))
        assert "--dry-run" not in given or "Memory" in told
    figures = {file.name for file in (tmp_path / "runs" / "towns" / "figures").glob("*.png")}
    assert {"grad_angle.png", "retention.png"} <= figures
