"""Growth of a snapshot's time and bytes with the model, its layers, and the examples.

Random Llamas, four probe sets, the recorder's default keys; each axis is varied over a decade while
the others stay. CPU seconds of one thread, snapshot taken and written, the least of a few. The fit
is a line through the logarithms: bytes or seconds ∝ (axis)^exponent, with the 95 % interval of the
slope. `--folder` keeps what is measured, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from geomix.config.recording import RecordConfig
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.figures.style import COLOURS, new_figure, save_figure, settle, style
from geomix.recording.recorder import Recorder
from geomix.snapshots.file import file_name, write_snapshot
from geomix.training.observer import TrainingEvent
from geomix.util.files import append_json_line

SETS, TOKENS, TARGET, VOCABULARY = 4, 40, 12, 2048
REPEATS = 3


@dataclass(frozen=True)
class Point:
    """Size of a record: decoder layers, width of the model, examples of a set, and kept ones."""

    layers: int = 4
    width: int = 128
    examples: int = 64
    kept: int = 16


AXES: dict[str, list[Point]] = {
    "parameters": [Point(width=width) for width in (64, 96, 128, 192, 256, 320)],
    "layers": [Point(layers=layers) for layers in (2, 3, 5, 8, 13, 20)],
    "examples": [Point(examples=n) for n in (16, 28, 48, 84, 144, 256)],
    "kept examples": [Point(kept=kept) for kept in (4, 8, 14, 24, 40, 64)],
}
COLUMNS = {"parameters": "parameters", "layers": "layers"}
COLUMNS |= {"examples": "examples", "kept examples": "kept"}
KEYS = ("layers", "width", "examples", "kept")
UNITS = {"seconds": "CPU s", "bytes": "bytes"}
LABELS = {"parameters": "parameters of the model", "layers": "decoder layers"}
LABELS |= {"examples": "examples of each probe set", "kept examples": "examples with activations"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="of results and figure; else nothing is kept")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        results = folder or Path(scratch)
        results.mkdir(parents=True, exist_ok=True)
        for axis, points in AXES.items():
            for point in points:
                found = measured(point, results / "points.jsonl", Path(scratch))
                print(
                    f"{axis:>13}  layers {point.layers:>2}  parameters {found['parameters']:>9,}  "
                    f"examples {SETS} x {point.examples:>3}  kept {point.kept:>2}  "
                    f"{found['seconds']:6.2f} s  {found['bytes'] / 1e6:6.2f} MB",
                    flush=True,
                )
        report(results)


def measured(point: Point, file: Path, scratch: Path) -> dict[str, float]:
    """Seconds, bytes and parameters of a point, measured unless the file has them."""
    for line in file.read_text().splitlines() if file.exists() else ():
        found: dict[str, float] = json.loads(line)
        if all(found[key] == value for key, value in asdict(point).items()):
            return found
    measures = {**asdict(point), **measure(point, scratch)}
    append_json_line(file, measures)
    return measures


def measure(point: Point, scratch: Path) -> dict[str, float]:
    model = llama(point)
    defaults = RecordConfig()
    recorder = Recorder(
        scratch,
        {f"set-{index}": list(examples(point.examples, index)) for index in range(SETS)},
        at=[0],
        reduction="token",
        batch_size=defaults.batch_size,
        pad_id=0,
        activations=point.kept,
        lens=defaults.lens,
    )
    moment, path = TrainingEvent(model, 0, "set", 0, 1, 0, None), scratch / file_name(0, 0)
    seconds = []
    recorder.snapshot(moment)  # warm up
    for _ in range(REPEATS):
        start = time.process_time()
        write_snapshot(path, recorder.snapshot(moment))
        seconds.append(time.process_time() - start)
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "seconds": min(seconds), "bytes": path.stat().st_size}


def llama(point: Point) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=point.width,
            intermediate_size=3 * point.width,
            num_hidden_layers=point.layers,
            num_attention_heads=4,
            tie_word_embeddings=True,
        )
    )


def examples(count: int, seed: int) -> Iterator[TokenisedExample]:
    draw = np.random.default_rng(seed)
    for _ in range(count):
        ids = tuple(int(token) for token in draw.integers(3, VOCABULARY, TOKENS))
        labels = (IGNORED,) * (TOKENS - TARGET) + ids[TOKENS - TARGET :]
        yield TokenisedExample(ids, labels, Example("prompt", "target"))


def report(results: Path) -> None:
    """Fit each axis, print the exponents, draw the points and lines."""
    lines = [json.loads(line) for line in (results / "points.jsonl").read_text().splitlines()]
    with style():
        figure = new_figure(4.0)
        grid = figure.subplots(len(UNITS), len(AXES), sharey="row", squeeze=False)
        for row, (measured_in, unit) in enumerate(UNITS.items()):
            for panel, (axis, points) in zip(grid[row], AXES.items(), strict=True):
                chosen = [line for line in lines if Point(*(line[k] for k in KEYS)) in points]
                x = np.array([line[COLUMNS[axis]] for line in chosen], dtype=float)
                y = np.array([line[measured_in] for line in chosen], dtype=float)
                fit = stats.linregress(np.log(x), np.log(y))
                half = stats.t.ppf(0.975, len(x) - 2) * fit.stderr
                print(
                    f"{measured_in:>7} ∝ {axis}^{fit.slope:.2f}, 95 % "
                    f"{fit.slope - half:.2f} to {fit.slope + half:.2f}, "
                    f"over a factor of {x.max() / x.min():.0f}, r² {fit.rvalue**2:.3f}"
                )
                panel.loglog(x, y, "o", color=COLOURS[0], markersize=4)
                span = np.array([x.min(), x.max()])
                panel.loglog(span, np.exp(fit.intercept) * span**fit.slope, color=COLOURS[1])
                panel.set_title(f"exponent {fit.slope:.2f} ± {half:.2f}")
                panel.set_xlabel(LABELS[axis])
                panel.set_xticks(span, [f"{end:,.0f}" for end in span])
                panel.xaxis.minorticks_off()
            grid[row][0].set_ylabel(f"{unit} a snapshot")
        settle(figure)
    for file in save_figure(figure, lines, results, "recording-growth"):
        print(file)


if __name__ == "__main__":
    main()
