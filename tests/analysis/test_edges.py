"""`geomix analyze grad-angle` where a disk is full, a terminal old or a file broken."""

from __future__ import annotations

import io
import json
import os
import resource
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.examples import render
from geomix.analysis.grad_angle.files import save
from geomix.analysis.grad_angle.measure import measure, measured
from geomix.analysis.grad_angle.notes import notes, number
from geomix.analysis.grad_angle.outputs import _conflicts
from geomix.analysis.layout import SlicedParameters
from geomix.analysis.retention import retention_rows
from geomix.api import Run
from geomix.models.load import LoadedModel
from geomix.util.errors import UserError
from tests.analysis.calls import command, grad_angle

Make = Callable[..., Any]


def test_arms_of_several_seeds_are_not_called_one_seed(
    tmp_path: Path, random_gradients: Make, write_arm: Make, write_run: Make
) -> None:
    run = write_run(tmp_path, ["one", "two"])
    for seed, arm in enumerate(("one", "two")):
        write_arm(run.path / "arms" / arm, random_gradients(), sets=("D_A", "D_B"))
        write_run(run.path / "arms" / arm, seed=seed)
    said = notes(measure([run], Asked()))
    assert not any(line.startswith("One seed") for line in said)
    assert any(line.startswith("Arms of 2 seeds, one run each: no interval") for line in said)
    assert (
        "No held-out set was recorded (a file that has no rows left over has none): "
        "nothing to read D_A's cosines against."
    ) in said


@pytest.mark.usefixtures("undrawn")
def test_an_ascii_terminal_gets_the_json(
    tmp_path: Path, random_gradients: Make, write_arm: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_arm(tmp_path, random_gradients())
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    command([Run(tmp_path)], Asked(), as_json=True)
    stdout.seek(0)
    assert json.loads(stdout.read())["rows"][0]["moment"] == "θ_0"


@pytest.mark.parametrize("text", ['{"D_A": {"n": 1e999, "of": 2}}', "[" * 100000, '{"D_A": 3}'])
def test_a_broken_list_of_probes_is_one_line(
    tmp_path: Path, random_gradients: Make, write_arm: Make, text: str
) -> None:
    write_arm(tmp_path, random_gradients())
    Run(tmp_path).probes_file.write_text(text)
    with pytest.raises(UserError, match=r"probes\.json: cannot be read") as caught:
        measure([Run(tmp_path)], Asked())
    assert len(caught.value.lines) == 1


def test_a_full_disk_while_saving_is_an_error_of_python(
    tmp_path: Path, random_gradients: Make, write_arm: Make
) -> None:
    """In a process of its own: HDF5 would take the whole process down."""
    write_arm(tmp_path, random_gradients())
    run = Run(tmp_path)
    result = measure([run])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the child asks no other thread for anything
        child = os.fork()
    if child == 0:
        status = 2
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
            save(result, [], run.analysis_folder)
        except OSError as error:
            status = int(error.filename != str(tmp_path / "analysis" / "grad_angle.h5"))
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert list(run.analysis_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "text"), [(-0.013, "-0.013"), (0.013, "0.013"), (-1e-4, "-1.0e-04"), (0.0, "0")]
)
def test_a_negative_number_is_written_as_a_positive_one(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_one_stands_in_has_the_name_of_its_folder(
    tmp_path: Path, random_gradients: Make, write_arm: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_arm(tmp_path / "here", random_gradients())
    monkeypatch.chdir(tmp_path / "here")
    result, _, _ = grad_angle([Run(Path())])
    assert [arm.arm for arm in result.arms] == ["here"]


@pytest.mark.usefixtures("undrawn")
def test_runs_whose_folders_share_a_name_are_told_apart(
    tmp_path: Path, random_gradients: Make, write_arm: Make
) -> None:
    """They differ in more than the seed, so that they are not put together."""
    runs = []
    for rate, place in enumerate(("one", "two")):
        run = Run(tmp_path / place / "same")
        write_arm(run.path, random_gradients())
        told = {"name": "", "hash": "0", "arms": None}
        config = {"seed": 0, "stages": [], "lr": rate}
        run.resolved_file.write_text(json.dumps({**told, "config": config}))
        runs.append(run)
    result, _, _ = grad_angle(runs)
    assert [arm.arm for arm in result.arms] == ["same of same", "same of same (2)"]


def test_seeds_of_another_base_model_are_not_put_together(
    tmp_path: Path, random_gradients: Make, write_arm: Make, write_run: Make
) -> None:
    for seed in range(2):
        folder = tmp_path / f"s{seed}"
        write_arm(folder, random_gradients())
        write_run(folder, seed=seed)
        known = json.loads(Run(folder).resolved_file.read_text())
        known["name"], known["config"]["model"] = "s", "base"
        Run(folder).resolved_file.write_text(json.dumps(known))
        base = {"model": "base", "tokenizer": "t", "weights": "w"}
        Run(folder).base_file.write_text(json.dumps(base))
    runs = [Run(tmp_path / "s0"), Run(tmp_path / "s1")]
    assert [arm.seeds for arm in measure(runs).arms] == [(0, 1)]
    runs[1].base_file.write_text(json.dumps({**base, "weights": "others"}))
    with pytest.raises(UserError, match=r"s1: its base model \(base\) has other weights") as caught:
        measure(runs)
    assert len(caught.value.lines) == 1


def test_moments_of_other_parameters_are_looked_at_apart(
    tmp_path: Path, random_gradients: Make, write_arm: Make
) -> None:
    write_arm(tmp_path, random_gradients(4), layers=4, moments=[(0, 0, 1)])
    write_arm(tmp_path, random_gradients(2), layers=2, moments=[(1, 1, 1)])
    with pytest.raises(UserError, match="stage 2 trains other"):
        measure([Run(tmp_path)])
    assert measure([Run(tmp_path)], Asked(at=("B",))).arms[0].labels == ["θ_B"]


@pytest.mark.usefixtures("unprinted")
@pytest.mark.parametrize("line", ['"step": 40', '"step": 40, "exact_match": "x"', '"step": null'])
def test_an_evaluation_that_lacks_its_numbers_is_one_line(
    tmp_path: Path, random_gradients: Make, write_arm: Make, line: str
) -> None:
    write_arm(tmp_path, random_gradients())
    text = f'{{"event": "evaluation", "stage": 0, "set": "D_A", {line}}}\n'
    Run(tmp_path).metrics_file.write_text(text)
    with pytest.raises(UserError, match=r"metrics\.jsonl: .* exact_match, numbers") as caught:
        retention_rows([("", [Run(tmp_path)])])
    assert len(caught.value.lines) == 1
    if line.endswith("null"):  # the others are drawn as soon
        with pytest.raises(UserError) as again:
            grad_angle([Run(tmp_path)])
        assert again.value.lines == caught.value.lines


def test_the_contrast_that_is_named_is_one_of_stage_2(
    tmp_path: Path, random_gradients: Make, write_arm: Make, write_run: Make
) -> None:
    moments = ((0, 0, 40), (0, 1, 40), (0, 40, 40), (1, 2, 20), (1, 20, 20))
    runs = []
    for seed in range(2):
        run = write_run(tmp_path / str(seed), ["one", "two"], seed)
        for count, arm in enumerate(("one", "two")):
            folder = run.path / "arms" / arm
            write_arm(folder, random_gradients(seed=10 * seed + count), moments=moments)
            write_run(folder, seed=seed)
            known = json.loads(Run(folder).resolved_file.read_text())
            known["config"]["arm"] = arm
            Run(folder).resolved_file.write_text(json.dumps(known))
        runs.append(run)
    said = [line for line in notes(measure(runs)) if line.startswith("two against one")]
    assert [line.split(":")[0] for line in said] == ["two against one at θ_A+2"]


def test_heads_of_an_attention_that_is_not_trained(loaded: LoadedModel) -> None:
    trained = {n: p for n, p in loaded.model.named_parameters() if "mlp" in n}
    with pytest.raises(UserError, match=r"none of the parameters .* that are trained"):
        SlicedParameters.of(loaded.model, trained, heads=True)


def _shown(
    tables: dict[str, Any], whole: dict[str, list[str]] | None = None, width: int = 80
) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False).print(render({"plain": tables}, whole))
    return stream.getvalue()


def _tables(conflicts: list[dict[str, Any]]) -> dict[str, Any]:
    where = {"seed": 3, "moment": "θ_A+1", "group": "all", "first": "D_M", "second": "D_B"}
    found: dict[str, Any] = {"cosines": [where | {"verdict": "exact"}], "conflicts": conflicts}
    return found | {key: [] for key in ("quantiles", "principal_angles", "ranks")}


def test_no_conflict_is_said_in_a_line() -> None:
    text = "plain, seed 3, at θ_A+1: no example of D_A conflicts with one of D_B"
    assert text in _shown(_tables([])).splitlines()


def test_no_sample_speaks_for_a_set_that_was_probed_whole() -> None:
    """The table of angles has the exact cosine for such sets."""
    tables = _tables([])
    numbers = {"cosine": -0.2, "low": -0.3, "high": -0.1, "bound": 0.8, "verdict": "interval"}
    tables["cosines"] = [
        tables["cosines"][0] | numbers | {"first": "D_A", "second": second}
        for second in ("D_B", "held-out")
    ]
    text = "cos(D_A, {}) of the sets, freed of noise: -0.200, -0.300 to -0.100 over examples"
    shown = _shown(tables, width=200)
    assert all(text.format(second) in shown for second in ("D_B", "held-out"))
    shown = _shown(tables, {"plain": ["D_A", "D_B"]}, width=200)
    assert text.format("D_B") not in shown
    assert text.format("held-out") in shown


def test_markup_in_a_text_is_shown_as_it_is() -> None:
    names = {"first_target": "[/]", "second_prompt": "[link=x]", "second_target": "\\["}
    row = {"cosine": -0.5, "inner_product": -0.25, "first_prompt": "[red]a[/nope]", **names}
    title, _, line = _shown(_tables([row])).splitlines()[1:4]
    assert title.startswith("plain, seed 3, at θ_A+1: pairs of examples by inner product")
    assert line.split() == ["-0.25", "-0.500", "[red]a[/nope]", "→", "[/]", "[link=x]", "→", "\\["]


def test_an_empty_list_of_conflicts_is_a_table_of_no_rows(tmp_path: Path) -> None:
    file = _conflicts(tmp_path / "conflicts.csv", {"plain": _tables([])})
    (head,) = file.read_text().splitlines()
    assert head.startswith("arm,seed,moment,group,rank,inner_product,cosine,share_of_sets,first_")


def test_two_calls_at_once_save_one_after_the_other(
    tmp_path: Path, random_gradients: Make, write_arm: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one renames, or removes, what the other is in the middle of writing."""
    write_arm(tmp_path, random_gradients())
    told: list[str] = []
    both = threading.Barrier(2)
    events: list[str] = []

    def slow_save(*arguments: Any) -> list[Path]:
        events.append("begins")
        time.sleep(0.3)
        events.append("ends")
        return save(*arguments)

    def measured_together(*arguments: Any) -> Any:
        found = measured(*arguments)
        both.wait(20)
        return found

    monkeypatch.setattr("geomix.analysis.grad_angle.outputs.save", slow_save)
    monkeypatch.setattr("geomix.analysis.grad_angle.measure.measured", measured_together)
    for name in ("_figures", "_example_figures"):
        monkeypatch.setattr(f"geomix.analysis.grad_angle.outputs.{name}", lambda *_: ())
    calls = [
        threading.Thread(target=grad_angle, args=([Run(tmp_path)], None, told.append))
        for _ in range(2)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join(20)
    assert events == ["begins", "ends"] * 2
    assert told == [f"{tmp_path}: another process is saving an analysis; waiting for it"]
    results = sorted(file.name for file in Run(tmp_path).analysis_folder.iterdir())
    assert results == [
        "grad_angle.h5",
        "grad_angle.json",
        "grad_angle.txt",
    ]  # as `geomix show` lists them


@pytest.mark.usefixtures("undrawn")
def test_what_a_user_puts_beside_the_figures_stays(
    tmp_path: Path, random_gradients: Make, write_arm: Make, write_run: Make
) -> None:
    """Files of an earlier call go by their whole names."""
    run = write_run(tmp_path, ["a", "b"])
    for arm in run.arms:
        write_arm(arm.path, random_gradients())
    mine = [
        "pairs_for the talk.pdf",
        "pairs_a.svg",
        "pairs.pptx",
        "along.svg",
        "by_module_along.csv",
    ]
    left = ["along.pdf", "pairs.png", "pairs_a.csv", "pairs_b.pdf", "along.txt"]
    run.figure_folder.mkdir()
    for name in mine + left:
        (run.figure_folder / f"grad_angle_{name}").touch()
    grad_angle([run])
    there = {file.name for file in run.figure_folder.iterdir()}
    assert there.issuperset(f"grad_angle_{name}" for name in mine)
    assert there.isdisjoint(f"grad_angle_{name}" for name in left)


@pytest.mark.usefixtures("unprinted")
def test_a_moment_within_the_first_stage_alone_is_drawn(
    tmp_path: Path, random_gradients: Make, write_arm: Make
) -> None:
    write_arm(tmp_path, random_gradients(), moments=[(0, 0, 9), (0, 3, 9), (0, 9, 9)])
    result, _, files = grad_angle([Run(tmp_path)], Asked(at=("0+3",)))
    assert "θ_0+3" in str([arm.labels for arm in result.arms])
    assert all(file.is_file() for file in files)


def test_more_moments_than_a_name_can_hold_are_refused_before_anything_is_read() -> None:
    with pytest.raises(UserError, match=r"--at: 99 moments; .* at most 120"):
        measure([], Asked(at=("A+1",) * 99))
