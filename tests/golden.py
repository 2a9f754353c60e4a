"""Compares what two versions of geomix write: a refactoring must not change a byte.

`python tests/golden.py OLD [NEW]` (or `make golden OLD=…`) runs the same commands with both, each a
folder of a checkout or a revision of git, and compares every file but process ids, commits and
times. NEW is this checkout if it is not given. What a revision wrote is kept in `.golden/` and
compared again without being computed again.

The runs: the preset `demo`; a run that records everything, with mixing and replay; one with LoRA
and all quirks of the paper's code; then both analyses, `figure`, `show` and `export` of each.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]

EVERYTHING = """
model: builtin
seed: 3
train: {batch_size: 8, micro_batch_size: 3, lr: 2e-3, update_shares: true, weight_decay: 0.01}
stages:
  - data: {source: kvr, limit: 16}
    mix: {source: random-words, ratio: 1, words: 6}
    stop: {epochs: 3}
  - data: {source: triples, limit: 12}
    replay: 0.5
    stop: {epochs: 4, patience: 3}
    train: {loss: example, schedule: wsd, gradient_checkpointing: true}
evaluate:
  epochs: 2
  steps: 3
  kl: {examples: 4}
  sets: {other: {source: kvr, limit: 6, split: id}}
checkpoint: {steps: 5}
record:
  at: [boundaries, "log:2"]
  probes: 7
  batch_size: 4
  activations: 3
  modules: ["*.mlp"]
  sketches: {entries: 16}
  weights: true
  gradients: true
  midpoints: true
  pairs: true
  scratch: disk
arms:
  plain: {stages.0.mix: null}
  mixed: {}
  control: {stages.0.mix: {source: random-words, ratio: 1, words: 6, passage_free: true}}
"""

LITERAL = """
model: builtin
paper_literal: true
stages:
  - data: {source: kvr, limit: 21}
    stop: {epochs: 2}
    train: {batch_size: 4, lr: 2e-3, lora: {rank: 4}}
  - data: {source: arithmetic, limit: 9}
    stop: {epochs: 6, loss_below: 1.0, times: 2}
    train: {batch_size: 4, trainable: ["layers:1-2", "embedding"]}
record: {probes: 6, at: [boundaries, 1, 4], activations: 2}
evaluate: {epochs: 1}
"""

COMMANDS = {
    "demo": ["train", "demo", "--out", "demo"],
    "everything": ["train", "everything.yaml", "--out", "everything"],
    "literal": ["train", "literal.yaml", "--out", "literal"],
}
AFTER = [
    ["analyze", "grad-angle", "{}", "--full"],
    ["analyze", "grad-angle", "{}", "--json"],
    ["figure", "retention", "{}"],
    ["show", "{}"],
    ["show", "{}", "--json"],
    ["export", "{}", "--to", "{}-parquet"],
    ["export", "{}", "--to", "{}-numpy", "--format", "numpy"],
]
ALSO = {
    "everything": [
        ["analyze", "grad-angle", "{}", "--by", "head", "--metric", "adam", "--examples", "4"],
        ["analyze", "grad-angle", "{}", "--by", "layer-module", "--from", "record"],
        ["analyze", "forgetting-path", "{}", "--full"],
        ["analyze", "forgetting-path", "{}", "--stage", "1", "--set", "D_M", "--json"],
    ],
    "literal": [
        ["train", "literal.yaml", "--out", "later", "--set", "record=null"],
        ["record", "later", "--set", "record.probes=5"],
    ],
}

UNEQUAL = {
    *("pid", "commit", "time", "seconds", "started", "ended", "created", "host"),
    *("examples_per_second", "tokens_per_second"),
}
"""Keys of JSON files that two runs of one version do not share."""


def equal_part(value: Any) -> Any:
    """A JSON value without what no two runs share."""
    if isinstance(value, dict):
        return {key: equal_part(item) for key, item in value.items() if key not in UNEQUAL}
    return [equal_part(item) for item in value] if isinstance(value, list) else value


def content(path: Path) -> bytes:
    """Return the part of a file that must be equal."""
    whole = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        lines = whole.decode().splitlines() if path.suffix == ".jsonl" else [whole.decode()]
        parts = [equal_part(json.loads(line)) for line in lines if line]
        return json.dumps(parts, sort_keys=False).encode()
    if path.suffix == ".txt":  # what was printed, without its progress
        kept = [line for line in whole.splitlines() if not re.search(rb" \d+:\d\d", line)]
        return re.sub(rb' *\d+ s\b|"pid": \d+', b"", b"\n".join(kept))
    return whole


def hashes(folder: Path) -> dict[str, str]:
    """The hash of what must be equal, by the file's path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(content(path)).hexdigest()
        for path in files
        if not {"__pycache__", ".cache"} & {*path.parts}
    }


def commands(name: str) -> Iterator[list[str]]:
    """All commands of a run."""
    yield COMMANDS[name]
    for command in AFTER + ALSO.get(name, []):
        yield [word.replace("{}", name) for word in command]


def write(name: str, checkout: Path, out: Path) -> None:
    """Run a run's commands with the geomix of a checkout; what each prints is a file too."""
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "everything.yaml").write_text(EVERYTHING, encoding="utf-8")
    (folder / "literal.yaml").write_text(LITERAL, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"}
    for number, words in enumerate(commands(name)):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "geomix", *words],
            cwd=folder,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        said = f"geomix {' '.join(words)}\nstatus {done.returncode}\n{done.stdout}"
        (folder / f"printed-{number}.txt").write_text(said, encoding="utf-8")
        print(f"{checkout.name}: geomix {' '.join(words)}: {done.returncode}", flush=True)


def written(version: str) -> dict[str, str]:
    """The hashes of what a version writes; of a revision they are kept."""
    if Path(version).is_dir():
        return made(Path(version).resolve(), HERE / ".golden" / "here")
    revision = git("rev-parse", "--short", version).strip()
    kept = HERE / ".golden" / revision
    if not (kept / "done").exists():
        checkout = kept / "checkout"
        if not checkout.exists():
            git("worktree", "add", "--detach", str(checkout), revision)
        made(checkout, kept / "out")
        git("worktree", "remove", "--force", str(checkout))
        (kept / "done").touch()
    return hashes(kept / "out")


def made(checkout: Path, out: Path) -> dict[str, str]:
    """Run everything with one checkout, two runs at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: write(name, checkout, out), COMMANDS))
    return hashes(out)


def git(*words: str) -> str:
    """Return git's output."""
    done = subprocess.run(["git", *words], cwd=HERE, check=True, capture_output=True, text=True)
    return done.stdout


def main(arguments: Sequence[str]) -> int:
    """Compare two versions; 1 where a file differs, is missing or is new."""
    old, new = written(arguments[0]), written(arguments[1] if len(arguments) > 1 else str(HERE))
    unequal = [path for path in old if new.get(path, old[path]) != old[path]]
    gone, added = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    for word, paths in (("differs", unequal), ("missing", gone), ("new", added)):
        print("".join(f"{word}: {path}\n" for path in paths), end="")
    print(f"{len(old)} files, {len(unequal)} differ, {len(gone)} missing, {len(added)} new")
    return int(bool(unequal or gone or added))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
