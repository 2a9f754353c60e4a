"""Cost of the label mask and packing, against one call of the tokenizer on the plain texts.

100,000 key-value pairs on the built-in tokenizer, one thread. Each way runs in a process of its
own, so that the peak memory is its own too; all keep every token. What is packed is packed as
training does, batch by batch, and each batch is let go for the next.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time

EXAMPLES = 100_000
ROUNDS = 3
BATCH, WIDTH = 32, 128
PLAIN = "one call, plain texts"
PACKED = f"tokenise_all, tulu, packed {BATCH} to rows of {WIDTH}"
CHATS = {
    PLAIN: "",
    "tokenise_all, tulu": "tulu",
    "tokenise_all, a token over every boundary": "Q: {prompt}\nA: {target}",
    PACKED: "tulu",
}


def measure(way: str) -> dict[str, float]:
    """Seconds, tokens and peak memory of one way, in this process; MiB."""
    from geomix.data.batch import chunks, collate
    from geomix.data.chat import chat_format
    from geomix.data.sources import kvr
    from geomix.data.tokenise import tokenise_all
    from geomix.models.load import load_tokenizer, quiet_libraries

    quiet_libraries()
    tokenizer = load_tokenizer("builtin")
    examples = kvr.examples(EXAMPLES, 0, "train")
    texts = [f"<|user|>\n{e.prompt}\n<|assistant|>\n{e.target}</s>" for e in examples]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    places = 0
    if CHATS[way]:
        made = tokenise_all(tokenizer, examples, chat_format(CHATS[way], tokenizer))
        tokens = sum(len(example.ids) for example in made)
    else:
        tokens = sum(map(len, tokenizer(texts, verbose=False)["input_ids"]))
    if way == PACKED:
        pad = tokenizer.pad_token_id
        for part in chunks(made, BATCH):
            places += collate(part, [1.0] * len(part), pad, WIDTH).ids.numel()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"seconds": seconds, "tokens": tokens, "before": before, "peak": peak}
    return found | {"padding": 100 * (1 - tokens / places) if places else 0.0}


def main() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    found: dict[str, list[dict[str, float]]] = {way: [] for way in CHATS}
    for _ in range(ROUNDS):  # in turn, so that a slow spell of the machine meets all of them
        for way, rounds in found.items():
            command = [sys.executable, __file__, way]
            rounds.append(json.loads(subprocess.check_output(command, env=environment)))
    best = {way: min(rounds, key=lambda r: r["seconds"]) for way, rounds in found.items()}
    baseline = best[PLAIN]["seconds"]
    print(f"{EXAMPLES:,} examples, fastest of {ROUNDS} runs, one thread")
    print(
        f"{'way':47} {'s':>6} {'examples/s':>10} {'x one call':>10} {'tokens':>10} "
        f"{'peak MiB':>9} {'before':>7}"
    )
    for way, run in best.items():
        print(
            f"{way:47} {run['seconds']:6.1f} {EXAMPLES / run['seconds']:10,.0f} "
            f"{run['seconds'] / baseline:10.2f} {run['tokens']:10,} {run['peak']:9.0f} "
            f"{run['before']:7.0f}"
        )
    print(f"padding left in the packed rows: {best[PACKED]['padding']:.1f} % of the tokens")


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1]))) if len(sys.argv) > 1 else main()
