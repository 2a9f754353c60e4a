"""Cost of products with second derivatives relative to a gradient, and of two spectra's ends.

On the demo's D_A (100 facts, the built-in model): a Hessian product with the graph kept and
rebuilt, a Gauss–Newton product, and the most memory, each against one gradient, in turn, in one
process. Where they are installed, the Hessians of curvlinops and hessian-eigenthings on the same
batch. Then the CPU seconds of both ends of H_A and H_B at θ_A of a run of the demo.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geomix.data.batch import Batch
from geomix.data.sources import kvr
from geomix.data.tokenise import tokenise_all
from geomix.gradients.products import SetObjective
from geomix.models.forward import batches_of, plain_forward
from geomix.models.load import load_model, quiet_libraries
from geomix.models.loss import weighted_loss

FACTS = 100
GOALS = {"kept": 2.2, "rebuilt": 3.3, "memory": 3.0}


def demo() -> tuple[SetObjective, Batch]:
    """D_A of the demo as one batch, on the built-in model."""
    quiet_libraries()
    loaded = load_model("builtin", torch.device("cpu"))
    loaded.model.set_attn_implementation("eager")  # type: ignore[operator]
    examples = tokenise_all(loaded.tokenizer, kvr.examples(FACTS, 0, "train"))
    batches = list(batches_of(examples, "example", FACTS, loaded.pad_id, loaded.device))
    parameters = dict(loaded.model.named_parameters())
    return SetObjective(loaded.model, batches, "example", parameters, FACTS, FACTS), batches[0]


def direction(objective: SetObjective) -> dict[str, Tensor]:
    """Draw a random vector."""
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(p.shape, generator=generator) for n, p in objective.parameters.items()}


class _Wrapped(nn.Module):
    """The model as other libraries call it: an input in, logits of the target tokens out."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.model, self.batch = model, batch

    def forward(self, _: Tensor) -> Tensor:
        return plain_forward(self.model)(self.batch)


class _Loss(nn.Module):
    """The batch's mean loss, with what curvlinops asks of a loss."""

    reduction = "sum"

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch

    def forward(self, logits: Tensor, _: Tensor) -> Tensor:
        return weighted_loss(logits, self.batch)


def _curvlinops(objective: SetObjective, batch: Batch, flat: Tensor) -> Callable[[], Tensor]:
    from curvlinops import HessianLinearOperator

    data = [(torch.zeros(FACTS), torch.zeros(FACTS))]
    model, loss = _Wrapped(objective.model, batch), _Loss(batch)
    parameters = list(objective.parameters.values())
    operator: Any = HessianLinearOperator(model, loss, parameters, data, check_deterministic=False)
    return lambda: operator @ flat


def _eigenthings(objective: SetObjective, batch: Batch, flat: Tensor) -> Callable[[], Tensor]:
    from hessian_eigenthings import HessianOperator

    def loss(model: nn.Module, one: Batch) -> Tensor:
        return weighted_loss(plain_forward(model)(one), one)

    operator: Any = HessianOperator(objective.model, [batch], loss)
    return lambda: operator.matvec(flat)


PEERS = {"curvlinops": _curvlinops, "hessian_eigenthings": _eigenthings}


def _peers(objective: SetObjective, batch: Batch, v: dict[str, Tensor]) -> dict[str, Any]:
    """Return each installed peer's product as a function without arguments; report the others."""
    found = {}
    flat = torch.cat([t.reshape(-1) for t in v.values()])
    for name, peer in PEERS.items():
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed: left out")
            continue
        try:
            way = peer(objective, batch, flat)
            way()
            found[name] = way
        except Exception as error:  # a peer that cannot do it is no failure of ours
            print(f"{name} cannot do it: {' '.join(str(error).split())[:120]}")
    return found


def ratios(rounds: int) -> None:
    """Time each way in turn, as multiples of one gradient's seconds."""
    objective, batch = demo()
    v = direction(objective)
    exact = objective.hessian_product(v)
    peers = _peers(objective, batch, v)

    def plain() -> None:
        logits = plain_forward(objective.model)(batch)
        torch.autograd.grad(weighted_loss(logits, batch), list(objective.parameters.values()))

    ways: dict[str, Callable[[], Any]] = {"a gradient": plain}
    with objective.kept() as products:
        products.hessian(v)
        products.gauss_newton(v)
        ways["Hessian, kept"] = lambda: products.hessian(v)
        ways["Gauss–Newton, kept"] = lambda: products.gauss_newton(v)
        ways["Hessian, rebuilt"] = lambda: objective.hessian_product(v)
        ways["Gauss–Newton, rebuilt"] = lambda: objective.gauss_newton_product(v)
        ways |= peers
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                gc.collect()
                begun = time.process_time()
                way()
                times[name].append(time.process_time() - begun)
    plain_time = statistics.median(times["a gradient"])
    print(f"{FACTS} facts in one batch, {torch.get_num_threads()} threads; CPU s, {rounds} rounds")
    goals = {"Hessian, kept": GOALS["kept"], "Hessian, rebuilt": GOALS["rebuilt"]}
    for name, seconds in times.items():
        ratio = statistics.median(seconds) / plain_time
        goal = f"   (at most {goals[name]})" if name in goals else ""
        print(f"  {name:24} {statistics.median(seconds):7.3f} s   {ratio:5.2f}{goal}")
    ours = torch.cat([t.reshape(-1) for t in exact.values()])
    for name, way in peers.items():
        apart = float((way().detach().reshape(-1) - ours).norm() / ours.norm())
        print(f"  {name}: its product is {apart:.1e} of the norm from ours")


_PEAK = """
import sys
from pathlib import Path
import torch
from benchmarks.curvature import demo, direction
from benchmarks.memory import resident
from geomix.models.forward import plain_forward
from geomix.models.loss import weighted_loss
objective, batch = demo()
v = direction(objective)
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = resident("VmRSS")
what = sys.argv[1]
if what == "gradient":
    loss = weighted_loss(plain_forward(objective.model)(batch), batch)
    torch.autograd.grad(loss, list(objective.parameters.values()))
elif what == "kept":
    with objective.kept() as products:
        products.hessian(v)
        products.hessian(v)
else:
    objective.hessian_product(v)
print(resident("VmHWM") - before)
"""


def memory() -> None:
    """Print each way's peak memory beyond the loaded model, measured in a process of its own."""
    found = {}
    for what in ("gradient", "kept", "rebuilt"):
        command = [sys.executable, "-c", _PEAK, what]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
        )
        found[what] = int(done.stdout.split()[-1]) / (1 << 20)
    print("most memory beyond the loaded model")
    for what, size in found.items():
        goal = f"   (at most {GOALS['memory']})" if what == "kept" else ""
        print(f"  {what:24} {size:7.0f} MiB {size / found['gradient']:5.2f}{goal}")


def ends(folder: Path | None) -> None:
    """Measure the CPU seconds of both ends of H_A and H_B at θ_A of a run's first arm."""
    if folder is None:
        print("both ends of H_A and H_B: give --run a finished run of the demo")
        return
    from geomix.analysis.curvature import Asked
    from geomix.analysis.curvature.measure import measure
    from geomix.runs.directory import open_run

    run = open_run(folder)
    begun = time.process_time()
    result = measure([type(run)(run.arms[0].path)], Asked().listed(), print)
    seconds = time.process_time() - begun
    print(f"both ends of H_A and H_B at θ_A, {run.arms[0].name}: {seconds:.0f} CPU s (at most 150)")
    for one in result.spectra:
        print(
            f"  {one.matrix}: {one.bottom[0]:+.3g} ± {one.residuals[0]:.2g} to "
            f"{one.top[0]:+.3g} ± {one.residuals[1]:.2g}, {one.state}, {one.products} products"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--run", type=Path, help="a finished run of the demo")
    given = parser.parse_args()
    ratios(given.rounds)
    memory()
    ends(given.run)


if __name__ == "__main__":
    main()
