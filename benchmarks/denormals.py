"""Numbers that underflow and their cost: gradients of passages that the base model copies.

Steps of forward and backward over random-word passages, which the built-in model knows (loss
0.0005), and over facts that it does not, with denormal numbers as they are and counted as zeros,
as geomix does. Each setting has a process of its own, since threads inherit it; the processes take
turns. Printed are medians over the turns and their ratio. On processors that compute with denormal
numbers at full speed it is 1.

`python benchmarks/denormals.py` prints the table.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS, STEPS, BATCH = 5, 6, 32


def serve(flush: bool) -> None:
    """For each line that comes in, time steps over the kind of examples that it names."""
    import geomix  # noqa: F401, I001 (before torch, as where geomix is started)
    import torch

    from geomix.data.batch import collate, token_weights
    from geomix.data.sources import kvr, random_words
    from geomix.data.tokenise import tokenise_all
    from geomix.models import load
    from geomix.models.forward import backward, plain_forward

    if not flush:
        load.flush_denormals = lambda: None
    load.quiet_libraries()
    loaded = load.load_model("builtin", torch.device("cpu"))
    forward = plain_forward(loaded.model.train())
    made = {
        "passages": random_words.examples(BATCH, 20, 0),
        "facts": kvr.examples(BATCH, 0, "train"),
    }
    batches = {}
    for name, examples in made.items():
        rows = tokenise_all(loaded.tokenizer, examples)
        batches[name] = collate(rows, token_weights(rows, "example"), loaded.pad_id, None)

    print(flush=True)
    for line in sys.stdin:
        batch = batches[line.strip()]
        backward(forward, batch)
        start = time.perf_counter()
        for _ in range(STEPS):
            backward(forward, batch)
        print((time.perf_counter() - start) / STEPS, flush=True)


def main() -> None:
    """Print the table."""
    servers = {
        flush: subprocess.Popen(
            [sys.executable, __file__, str(int(flush))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for flush in (False, True)
    }
    for server in servers.values():
        assert server.stdout is not None
        server.stdout.readline()
    for kind in ("passages", "facts"):
        found: dict[bool, list[float]] = {flush: [] for flush in servers}
        for _ in range(ROUNDS):
            for flush, server in servers.items():
                assert server.stdin is not None
                assert server.stdout is not None
                server.stdin.write(f"{kind}\n")
                server.stdin.flush()
                found[flush].append(float(server.stdout.readline()))
        kept, zero = (statistics.median(found[flush]) for flush in (False, True))
        ratios = [a / b for a, b in zip(found[False], found[True], strict=True)]
        print(
            f"{kind:9} as they are {kept:.3f} s, as zeros {zero:.3f} s a step, "
            f"ratio {kept / zero:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    for server in servers.values():
        server.communicate()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(sys.argv[1] == "1")
    else:
        main()
