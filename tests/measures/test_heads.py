"""An attention's parameters split by head, compared with the attention's own computation."""

from __future__ import annotations

import pytest
import torch

from geomix.measures.heads import HeadSlice, head_slices

SHAPES = {
    "self_attn.q_proj": (12, 12),
    "self_attn.k_proj": (6, 12),
    "self_attn.v_proj": (6,),
    "self_attn.o_proj": (12, 12),
    "attn.c_attn": (12, 36),
    "attn.c_proj": (12, 12),
    "attention.query_key_value": (36, 12),
}


def pieces(module: str, shape: tuple[int, ...], heads: int, kv_heads: int) -> list[HeadSlice]:
    found = head_slices(module, shape, heads, kv_heads)
    assert found is not None
    return found


@pytest.mark.parametrize("module", SHAPES)
def test_the_pieces_cover_every_element_once(module: str) -> None:
    grouped = "k_proj" in module or "v_proj" in module
    seen = torch.zeros(SHAPES[module])
    for piece in pieces(module, SHAPES[module], 4, 2 if grouped else 4):
        seen[piece.index] += 1
    assert torch.equal(seen, torch.ones(SHAPES[module]))


def test_a_query_head_is_its_rows_and_its_columns_of_the_output() -> None:
    rows = {p.head: p.index for p in pieces("self_attn.q_proj", (12, 5), 4, 4)}
    assert rows["head 2"] == (slice(6, 9),)
    columns = {p.head: p.index for p in pieces("self_attn.o_proj", (5, 12), 4, 4)}
    assert columns["head 2"] == (slice(None), slice(6, 9))


def test_shared_keys_and_values_are_heads_of_their_own() -> None:
    assert [p.head for p in pieces("self_attn.k_proj", (6, 12), 4, 2)] == ["kv head 0", "kv head 1"]


def test_gpt2_has_queries_keys_and_values_side_by_side() -> None:
    found = pieces("attn.c_attn", (12, 36), 4, 4)
    assert [p.index[1].start for p in found if p.head == "head 1"] == [3, 15, 27]


@pytest.mark.parametrize("module", ["mlp.c_proj", "mlp.dense", "input_layernorm", "attn.bias"])
def test_what_is_no_part_of_an_attention_has_no_heads(module: str) -> None:
    assert head_slices(module, (12, 12), 4, 4) is None


def test_a_size_that_the_heads_do_not_divide_has_none() -> None:
    assert head_slices("self_attn.q_proj", (13, 12), 4, 4) is None


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox"])
def test_silencing_a_head_changes_nothing_but_its_gradient(kind: str) -> None:
    """Zeroing a head's share of the output projection zeroes its gradients of q, k and v, only."""
    from transformers import (
        AutoModelForCausalLM,
        GPT2Config,
        GPTNeoXConfig,
        LlamaConfig,
        PreTrainedConfig,
    )

    config: PreTrainedConfig
    if kind == "gpt2":
        config = GPT2Config(n_embd=16, n_head=4, n_layer=1, vocab_size=20, n_positions=16)
    elif kind == "neox":
        config = GPTNeoXConfig(
            hidden_size=16,
            num_attention_heads=4,
            num_hidden_layers=1,
            intermediate_size=16,
            vocab_size=20,
        )
    else:
        config = LlamaConfig(
            hidden_size=16,
            num_attention_heads=4,
            num_key_value_heads=4,
            num_hidden_layers=1,
            intermediate_size=16,
            vocab_size=20,
        )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    cut = {
        name: found
        for name, p in model.named_parameters()
        if "attn" in name or "attention" in name
        if (found := head_slices(name.split(".", 3)[3].rsplit(".", 1)[0], p.shape, 4, 4))
    }
    assert len(cut) >= 2
    named = dict(model.named_parameters())
    out = next(n for n in cut if n.endswith(("o_proj.weight", "c_proj.weight", "dense.weight")))
    with torch.no_grad():
        for piece in cut[out]:
            if piece.head == "head 2":
                named[out][piece.index] = 0
    ids = torch.arange(8)[None]
    torch.autograd.backward(model(input_ids=ids, labels=ids).loss)
    for name, found in cut.items():
        if name == out:
            continue
        gradient = named[name].grad
        assert gradient is not None
        for head in range(4):
            mine = [gradient[p.index] for p in found if p.head == f"head {head}"]
            silent = all(not part.any() for part in mine)
            assert silent == (head == 2), (name, head)
