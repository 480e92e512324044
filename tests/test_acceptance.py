"""The checks on which a reproduction of Na, Mehta & Strubell 2022 stands or falls, one test each, and Chen et al.'s masks.

Those of structured pruning, (f) to (h), stand with the gates; (i), the sizes of int8 files of BERT-base, with the quantizers.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from trainflat import compress, flat, train

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")


@pytest.fixture
def bert() -> nn.Module:
    """BERT's architecture with three thin layers, dropout as published."""
    shape = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=60, max_position_embeddings=16, **shape)
    return transformers.BertForSequenceClassification(config)


def prunable(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and ("encoder" in name or "pooler" in name)


def batch(seed: int) -> tuple[dict, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {"input_ids": torch.randint(0, 60, (8, 12), generator=draw)}, torch.randint(0, 2, (8,), generator=draw)


def fit(model: nn.Module, rule, steps: int = 4) -> None:
    torch.manual_seed(1)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = [batch(i) for i in range(steps)]
    train.fit(model, train.cross_entropy, batches, adam, steps=steps, gradient=rule, clip=1.0, lr=train.linear())


def test_a_rho_zero_is_adam_bit_for_bit(bert):
    other = copy.deepcopy(bert)
    fit(bert, flat.plain())
    fit(other, flat.sam(rho=0.0))
    assert all(torch.equal(p, q) for p, q in zip(bert.parameters(), other.parameters(), strict=True))


def test_b_a_sam_step_touches_neither_masked_nor_saved_weights(bert):
    start = train.snapshot(bert)
    saved = {name: tensor.clone() for name, tensor in start.items()}
    mask = compress.prune(compress.magnitude(bert), 0.5, within=compress.Mask.dense(bert, prunable))
    with mask.on(bert):
        fit(bert, flat.sam(rho=0.05))
    parameters = dict(bert.named_parameters())
    assert not any(parameters[name][~alive].any() for name, alive in mask.items())
    assert all(torch.equal(saved[name], start[name]) for name in saved)


@pytest.mark.slow
def test_c_ten_percent_rounds_are_exact_on_bert_base():
    model = transformers.BertForSequenceClassification(transformers.BertConfig())
    mask = compress.Mask.dense(model, prunable)
    assert mask.size == 85_524_480
    for k, sparsity in enumerate(compress.rounds(0.9, n=9), start=1):
        mask = compress.prune(compress.magnitude(model), sparsity, within=mask)
        assert mask.size - mask.alive == k * 8_552_448


def test_d_rewound_weights_are_the_checkpoint_s(bert):
    start = train.snapshot(bert)
    mask = compress.prune(compress.magnitude(bert), 0.3, within=compress.Mask.dense(bert, prunable))
    ticket = compress.Ticket(mask, start)
    fit(bert, flat.sam())
    ticket.rewind(bert, keep=("classifier",))
    for name, tensor in bert.state_dict().items():
        if not name.startswith("classifier"):
            alive = mask.get(name, torch.ones_like(tensor, dtype=torch.bool))
            assert torch.equal(tensor, start[name] * alive)
    assert not torch.equal(bert.state_dict()["classifier.weight"], start["classifier.weight"])


def test_e_and_chen_every_mask_lies_in_the_one_before_and_is_theirs(bert):
    """Their rounds: L1 over all matrices at once, 1 / (10 - k) of what remains, after each fine-tuning."""
    mask, theirs = compress.Mask.dense(bert, prunable), copy.deepcopy(bert)
    modules = {f"{name}.weight": module for name, module in theirs.named_modules() if f"{name}.weight" in mask}
    assert len(modules) == 3 * 6 + 1
    assert mask.size % 10 == 0  # else the two round differently
    for k, sparsity in enumerate(compress.rounds(0.9, n=9)):
        with mask.on(bert):
            fit(bert, flat.plain(), steps=2)
        for name, module in modules.items():  # the same trained weights for both
            getattr(module, "weight_orig", module.weight).data.copy_(bert.get_parameter(name).detach())
            if k:
                module.weight = module.weight_orig * module.weight_mask  # as their forward pass does
        torch_prune.global_unstructured(
            [(module, "weight") for module in modules.values()], torch_prune.L1Unstructured, amount=1 / (10 - k)
        )
        before, mask = mask, compress.prune(compress.magnitude(bert), sparsity, within=mask)
        assert mask & before == mask
        assert all(torch.equal(mask[name], module.weight_mask.bool()) for name, module in modules.items())
