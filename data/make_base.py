"""Make the built-in base model: `python data/make_base.py --out data/base`.

It trains on one CPU thread and can be stopped and started again: the work folder keeps its place.
Two runs with the same seed, steps, interpreter and torch give the same model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from base_card import card, facts_of_the_making
from base_corpus import Corpus, build_tokenizer, corpus
from base_measure import exact_match, held_out_windows, logits_of, mean_loss, measure
from base_mixture import LONGEST_COPY, RECENT, Batch, Mixture
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers import logging as transformers_logging

from geomix.data.sources import random_words as words


@dataclass(frozen=True, slots=True)
class Recipe:
    """Recipe of the base model's training.

    Attributes:
        steps: all steps.
        copy_steps: the first of them, on copying alone.
        settle: the share of the steps, the last ones, in which the learning rates fall to 0.
        budget: tokens of one kind in a step, about; after `copy_steps` a step has two kinds.
        matrix_lr: learning rate of Muon, for the matrices of the layers.
        other_lr: learning rate of AdamW, for the embedding and the norms.
        shortest: tokens of the longest passage at the start.
        seed: of the weights and of the data.
    """

    steps: int = 5000
    copy_steps: int = 1000
    settle: float = 0.4
    budget: int = 1800
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    shortest: int = 12
    seed: int = 0


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Build a Llama of 1.1 million parameters with tied embeddings."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def rate(step: int, recipe: Recipe) -> float:
    """Return a step's learning rate as a share of the full one: 50 steps up, level, down to 0."""
    falling = max(1, round(recipe.settle * recipe.steps))
    return min(1.0, (step + 1) / 50, (recipe.steps - step) / falling)


class Trainer:
    """The model, its optimisers and how long the passages may be by now."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, text: Corpus, recipe: Recipe) -> None:
        self.recipe = recipe
        self.tokenizer = tokenizer
        self.mixture = Mixture(tokenizer, text, recipe.seed)
        self.model = new_model(tokenizer, recipe.seed)
        named = list(self.model.named_parameters())
        matrices = [p for name, p in named if "_proj" in name]
        others = [p for name, p in named if "_proj" not in name]
        # With AdamW alone, copying does not appear in the time in which Muon is done with it.
        self.optimisers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(matrices, recipe.matrix_lr, weight_decay=0.0), recipe.matrix_lr),
            (
                torch.optim.AdamW(others, recipe.other_lr, (0.9, 0.98), weight_decay=0.0),
                recipe.other_lr,
            ),
        ]
        self.step = 0
        self.longest = recipe.shortest
        self.right: deque[float] = deque(maxlen=RECENT)
        self.cpu_seconds = 0.0

    def train_step(self) -> None:
        """One update; passages grow by a token while the last ones were mostly copied right."""
        started = time.process_time()
        recipe, step = self.recipe, self.step
        batches = [self.mixture.copies(step, recipe.budget, self.longest)]
        if step >= recipe.copy_steps:
            batches.append(self.mixture.others(step, recipe.budget))
        for kind, batch in enumerate(batches):
            share = self._backward(batch, 1 / len(batches))
            if kind == 0:
                self.right.append(share)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser, full in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = full * rate(step, recipe)
            optimiser.step()
            optimiser.zero_grad()
        if self.longest < LONGEST_COPY and sum(self.right) > 0.8 * RECENT:
            self.longest += 1
        self.step += 1
        self.cpu_seconds += time.process_time() - started

    def _backward(self, batch: Batch, weight: float) -> float:
        """Add the gradient; returns the share of the tokens with loss that were the argmax."""
        logits, labels = logits_of(self.model, batch)
        (weight * cross_entropy(logits, labels)).backward()  # type: ignore[no-untyped-call]
        return float((logits.argmax(-1) == labels).float().mean())

    def state(self) -> dict[str, Any]:
        """All that `resume` needs."""
        return {
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser, _ in self.optimisers],
            "step": self.step,
            "longest": self.longest,
            "right": list(self.right),
            "cpu_seconds": self.cpu_seconds,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            ValueError: the state is of another recipe.
        """
        if state["recipe"] != asdict(self.recipe):
            raise ValueError("the work folder holds a run of another recipe; choose another --work")
        self.model.load_state_dict(state["model"])
        for (optimiser, _), saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.longest = state["step"], state["longest"]
        self.right.extend(state["right"])
        self.cpu_seconds = state["cpu_seconds"]


def save_base(trainer: Trainer, text: Corpus, out: Path, passages: int) -> dict[str, Any]:
    """Measure the model and replace the folder `out` by it in one move; returns `base.json`."""
    trainer.model.eval()
    report: dict[str, Any] = {
        **facts_of_the_making(text),
        "recipe": asdict(trainer.recipe),
        "step": trainer.step,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "cpu_seconds": round(trainer.cpu_seconds),
        "passages": passages,
        **measure(trainer.model, trainer.tokenizer, text, passages),
    }
    trainer.model.train()
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    trainer.model.save_pretrained(fresh)
    trainer.tokenizer.save_pretrained(fresh)
    (fresh / "base.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (fresh / "README.md").write_text(card(report), encoding="utf-8")
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return report


def progress(trainer: Trainer, text: Corpus) -> str:
    """One line: how well 100 unseen passages of 20 words are copied, and the held-out text loss."""
    model, tokenizer = trainer.model, trainer.tokenizer
    copied = exact_match(model, tokenizer, words.examples(100, 20, seed=3))
    loss = mean_loss(model, tokenizer, held_out_windows(tokenizer, text)[:60])
    recent = sum(trainer.right) / max(1, len(trainer.right))
    return (
        f"step {trainer.step}: {trainer.cpu_seconds:.0f} CPU s, "
        f"passages to {trainer.longest} tokens, tokens copied {recent:.3f}, "
        f"20 words exact {copied:.2f}, text loss {loss:.2f}"
    )


def main() -> None:
    """Read the options, train, save."""
    default = Recipe()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished base")
    parser.add_argument("--work", type=Path, help="folder of the checkpoint; kept, to resume from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=default.steps, help="of the whole schedule")
    parser.add_argument("--copy-steps", type=int, default=default.copy_steps)
    parser.add_argument("--save-early", type=int, default=0, help="also save every so many steps")
    parser.add_argument("--quick", action="store_true", help="a few steps, to try the command")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    recipe = Recipe(steps=options.steps, copy_steps=options.copy_steps, seed=options.seed)
    if options.quick:
        recipe = Recipe(steps=6, copy_steps=3, seed=options.seed)
    text = corpus()
    trainer = Trainer(build_tokenizer(text.train), text, recipe)
    checkpoint = options.work / "checkpoint.pt" if options.work else None
    if checkpoint and checkpoint.exists():
        trainer.resume(torch.load(checkpoint, weights_only=True))
    while trainer.step < recipe.steps:
        trainer.train_step()
        if checkpoint and trainer.step % 100 == 0:
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            torch.save(trainer.state(), checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
        if trainer.step % 100 == 0:
            print(progress(trainer, text), flush=True)
        if options.save_early and trainer.step % options.save_early == 0:
            save_base(trainer, text, options.out, passages=40)
    report = save_base(trainer, text, options.out, passages=10 if options.quick else 200)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
