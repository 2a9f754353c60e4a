"""Cost of `geomix analyze grad-angle`: seconds and memory, on small and on large models.

- `builtin`: the demo's three arms, trained first, analysed by one command of its own process, as a
  user calls it: records and kept weights, single examples, figures.
- `billion`: a random Llama of about a billion parameters, trained two stages of one step each in
  pure bfloat16, then analysed from its weights with few examples and gradients on the disk: the way
  of a model that barely fits. Memory is the process's own peak.

`python benchmarks/grad_angle.py [builtin] [billion]`; without names both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GIB = 2**30

SMALL_STAGES = """stages:
  - data: {source: kvr, limit: 4}
    stop: {epochs: 1}
  - data: {source: triples, limit: 4}
    stop: {epochs: 1}
train: {lr: 1e-4, batch_size: 4, precision: bf16-pure, loss: example}
record: {at: [boundaries], probes: 4, batch_size: 4, activations: 0, adam: false, scratch: disk,
         mix: {source: random-words, ratio: 1, words: 10}}
evaluate: {epochs: 0}
"""


def main() -> None:
    """Measure what is asked for."""
    asked = sys.argv[1:] or ["builtin", "billion"]
    with tempfile.TemporaryDirectory(dir=os.environ.get("GEOMIX_BENCH")) as folder:
        if "builtin" in asked:
            builtin(Path(folder))
        if "billion" in asked:
            billion(Path(folder))


def builtin(folder: Path) -> None:
    """Run the demo, then the command."""
    run = folder / "demo"
    _geomix("train", "--quiet", "--out", str(run))
    for options in ([], ["--from", "record"], ["--at", "A,+1,B", "--by", "head"]):
        seconds, cpu, peak = _geomix("analyze", "grad-angle", str(run), *options)
        text = " ".join(options) or "(defaults)"
        print(f"builtin, three arms: {text}: {seconds:.0f} s, {cpu:.0f} CPU s, {peak:.2f} GiB")


def billion(folder: Path) -> None:
    """Build a random Llama of a billion parameters."""
    from geomix.models.load import builtin_folder

    model = folder / "billion"
    count = _random_llama(model, builtin_folder())
    file = folder / "billion.yaml"
    file.write_text(SMALL_STAGES)
    run = folder / "run"
    name = ["--set", f"model={model}"]
    seconds, cpu, peak = _geomix("train", str(file), "--quiet", "--out", str(run), *name)
    print(f"{count / 1e9:.2f} billion parameters: trained in {seconds:.0f} s, {peak:.1f} GiB")
    shutil.rmtree(run / "records")
    seconds, cpu, peak = _geomix("analyze", "grad-angle", str(run), "--examples", "0")
    found = json.loads((run / "analysis" / "grad_angle.json").read_text())
    moments = next(iter(found["arms"].values()))["moments"]
    weights = 2 * count / GIB
    print(
        f"grad-angle, {len(moments)} moments × 5 sets of 4 examples: {seconds:.0f} s, "
        f"{cpu:.0f} CPU s, {peak:.1f} GiB: {peak / weights:.1f} times the weights in bfloat16 "
        f"({weights:.1f} GiB)"
    )


def _random_llama(folder: Path, tokenizer: Path) -> int:
    """Save it in bfloat16; how many parameters it has."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokens = AutoTokenizer.from_pretrained(tokenizer)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def _geomix(*arguments: str) -> tuple[float, float, float]:
    """Run the command line; seconds, CPU seconds, and the process's peak in GiB."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", "geomix", *arguments]
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(said.read())
    seconds = time.perf_counter() - start
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / GIB


if __name__ == "__main__":
    main()
