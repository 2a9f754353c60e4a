"""The README's example and commands are true."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from geomix.cli import main
from geomix.config.load import load
from geomix.data.sources import SOURCES
from geomix.studies.sweep_file import load_study

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_example_configuration_is_valid(tmp_path: Path) -> None:
    found = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    runs = [example for example in found if not example.startswith("base:")]
    for number, example in enumerate(runs):
        (tmp_path / f"{number}.yaml").write_text(example, encoding="utf-8")
    arms, *others = [load(file, sources=tuple(SOURCES)).arms for file in sorted(tmp_path.iterdir())]
    known, train, taken = (other[""] for other in others)
    assert train.stages[1].train.lora is not None
    assert [stage.from_ for stage in taken.stages] == ["runs/first", None]
    assert known.evaluate.sets["known"].familiar != known.stages[0].data.familiar
    assert list(arms) == ["plain", "mixed"]
    assert arms["mixed"].stages[0].mix is not None
    assert arms["plain"].stages[0].mix is None
    assert [stage.train.lr for stage in arms["plain"].stages] == [4e-3, 2e-3]


def test_example_study_is_valid(tmp_path: Path) -> None:
    run, study = (
        next(
            text
            for text in re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
            if key in text
        )
        for key in ("stages:", "base:")
    )
    (tmp_path / "my.yaml").write_text(run.partition("arms:")[0], encoding="utf-8")
    (tmp_path / "study.yaml").write_text(study, encoding="utf-8")
    members = load_study(tmp_path / "study.yaml", sources=tuple(SOURCES)).members
    assert len(members) == 9
    assert members[2].run.path == Path("runs/study/seed=0,stages.0.mix.ratio=2")
    assert "runs/study/seed=0,stages.0.mix.ratio=2" in README


def test_every_command_that_is_named_exists() -> None:
    named = set(re.findall(r"geomix (train|show|sweep|analyze [a-z-]+|data [a-z]+)", README))
    assert {
        "train",
        "show",
        "sweep",
        "analyze grad-angle",
        "data list",
        "data show",
        "data overlap",
    } <= named
    for command in named:
        assert CliRunner().invoke(main, [*command.split(), "--help"]).exit_code == 0


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z]+)\b", README)) - {"my"}:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_source_is_named() -> None:
    assert [name for name in SOURCES if f"`{name}`" not in README] == []
