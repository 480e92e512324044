"""What structured pruning costs and gains: a step under gates, shrinking, and how fast the smaller models are, int8 as well.

Peer of the surgery: ``torch-pruning`` at half of every dimension, where it can do the same work (extra ``bench``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import nn

from bench.bert import batch, bert
from bench.pairs import Line, arguments, load, now, ratio, show, take_turns
from trainflat import compress, hf, train
from trainflat.compress import Gates, Lagrangian, Shape
from trainflat.compress.sizes import gates_of, shrunk
from trainflat.hf import small as folders

TITLE = "Structured pruning at BERT-base size; models on one text of 128 tokens"
LIMIT = 2.0  # seconds that shrinking may take
REPEAT = 5  # forward passes of a fast model in one turn


def minilm(small: bool) -> nn.Module:
    """MiniLM's architecture with random weights: 6 layers, 384 hidden dimensions, 12 heads of 32, 1,536 neurons."""
    config = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    torch.manual_seed(0)
    return bert(small) if small else transformers.BertForSequenceClassification(transformers.BertConfig(**config))


def cofi_like(model: nn.Module, neurons: int) -> Shape:
    """What CoFi leaves at 95 %, evened out: all hidden dimensions, one head and a few neurons in every layer."""
    parts = compress.structure(model)
    return Shape(parts.hidden, (1,) * len(parts.layers), (neurons,) * len(parts.layers))


def half(model: nn.Module) -> Shape:
    """Half of every dimension."""
    parts = compress.structure(model)
    depth, heads, neurons = len(parts.layers), parts.attention[0].units, parts.ffn[0].units
    return Shape(parts.hidden // 2, (heads // 2,) * depth, (neurons // 2,) * depth)


def cut(model: nn.Module, shape: Shape) -> nn.Module:
    """The model shrunk to a shape, the first of each kept: which ones does not matter to the clock."""
    parts = compress.structure(model)
    return compress.shrink(model, parts, gates_of(parts, shape)).eval()


def gated_step(small: bool, rounds: int) -> list[Line]:
    """A training step under all five families of gates; the same objective, the same optimizer, and no teacher in either."""
    plain, gated = bert(small), bert(small)
    gates = Gates(compress.structure(gated))
    held = Lagrangian(train.cross_entropy, gates, target=0.95)
    adam = partial(torch.optim.AdamW, lr=2e-5, fused=True)
    both = adam([{"params": list(gated.parameters())}, *held.groups()])
    with gates.on(gated):
        runs = {
            "plain": train.loop(plain, train.cross_entropy, repeat(batch(small)), adam(plain.parameters()), steps=9999),
            "gated": train.loop(gated, held, repeat(batch(small)), both, steps=9999),
        }
        turns = {name: lambda run=run: next(run) and held.advance(0.5) for name, run in runs.items()}
        times = take_turns(turns, rounds=rounds)
    what = "a training step under gates, 8 x 128, without teacher; peer: without gates"
    return [ratio(what, times["gated"], times["plain"], 1.25)]


def forward(model: nn.Module, inputs: dict[str, Any], times: int = 1) -> Callable[[], float]:
    """Seconds of one forward pass, the mean of a few."""

    def run() -> float:
        with torch.no_grad():
            start = now()
            for _ in range(times):
                model(**inputs)
            return (now() - start) / times

    return run


def peer_half(model: nn.Module, inputs: dict[str, Any]) -> nn.Module:
    """The same half by torch-pruning, in place; the outputs of pooler and classifier stay, as they do with ours."""
    import torch_pruning

    attentions = [layer.attention.self for layer in model.bert.encoder.layer]
    heads = {linear: at.num_attention_heads for at in attentions for linear in (at.query, at.key, at.value)}
    pruner = torch_pruning.pruner.MetaPruner(
        model,
        inputs,
        importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        head_pruning_ratio=0.5,
        prune_num_heads=True,
        prune_head_dims=False,
        num_heads=heads,
        ignored_layers=[model.bert.pooler.dense, model.classifier],
        output_transform=lambda output: output.logits.sum(),
    )
    pruner.step()
    for at in attentions:
        at.num_attention_heads, at.all_head_size = pruner.num_heads[at.query], at.query.out_features
    return model


def peer_cuts(model: nn.Module, inputs: dict[str, Any]) -> float:
    """Seconds that the peer takes, without those of the copy that keeps the model as it is."""
    fresh = copy.deepcopy(model)
    start = now()
    peer_half(fresh, inputs)
    return now() - start


def reloaded(small: nn.Module, inputs: dict[str, Any]) -> str:
    """One sentence: whether the model comes back from its folder in one call, equal, and from which files."""
    with TemporaryDirectory() as folder, torch.no_grad():
        folders.save(folder, small)
        again, _ = hf.load(folder)
        same = torch.equal(again(**inputs).logits, small(**inputs).logits)
        names = ", ".join(sorted(file.name for file in Path(folder).iterdir()))
    return f"Saved ({names}) and back by `hf.load(folder)`: outputs {'equal, bit for bit' if same else 'DIFFER'}."


def described(name: str, model: nn.Module, shape: Shape) -> str:
    """A shape in words, with its sparsity."""
    found = shrunk(model, compress.structure(model), shape)
    return (
        f"{name}: {len(shape.heads)} layers of {shape.heads[0]} head and {shape.neurons[0]} neurons, {shape.hidden} hidden "
        f"dimensions: {found['layers']:.1%} of the layers' parameters gone, {found['total']:.1%} of all."
    )


def speeds(small: bool, rounds: int, there: bool) -> tuple[list[Line], list[str]]:
    """Forward passes of the dense models, the shrunk ones, both in int8, and halves by us and by the peer; and the surgery."""
    ids = batch(small)[0]["input_ids"][:1]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    base, mini = bert(small).eval(), minilm(small).eval()
    shapes = {"BERT-base": cofi_like(base, 16 if small else 136), "MiniLM": cofi_like(mini, 16 if small else 48)}
    models = {"bert": base, "bert small": cut(base, shapes["BERT-base"])}
    models |= {"mini": mini, "mini small": cut(mini, shapes["MiniLM"])}
    models |= {f"{name} int8": compress.dynamic_int8(model) for name, model in models.items()}
    models["half"] = cut(base, half(base))
    if there:
        models["peer half"] = peer_half(copy.deepcopy(base), inputs).eval()
    times = take_turns(
        {name: forward(model, inputs, 1 if name == "bert" else REPEAT) for name, model in models.items()}, rounds=rounds
    )
    surgery: dict[str, Callable[[], Any]] = {"ours": lambda: cut(base, half(base)) and None}
    if there:
        surgery["theirs"] = lambda: peer_cuts(base, inputs)
    cuts = take_turns(surgery, rounds=rounds)

    def faster(what: str, ours: str, dense: str, target: float | None = None) -> Line:
        return ratio(f"{what}; peer: dense", times[ours], times[dense], target, faster=True)

    seconds = cuts["ours"].median
    lines = [
        faster("a pass through BERT-base at 94 %, CoFi's published size", "bert small", "bert", 12.0),
        faster("the same in int8", "bert small int8", "bert"),
        faster("BERT-base whole in int8", "bert int8", "bert"),
        faster("MiniLM at 95 %", "mini small", "mini", 6.0),
        faster("the same in int8", "mini small int8", "mini", 9.0),
        faster("MiniLM whole in int8", "mini int8", "mini"),
        Line("shrinking BERT-base; peer: 2 s", f"{seconds:.3g} s", f"{LIMIT:g} s", seconds / LIMIT, 1.0),
        faster("half of BERT-base's every dimension", "half", "bert"),
    ]
    notes = [described("BERT-base", base, shapes["BERT-base"]), described("MiniLM", mini, shapes["MiniLM"])]
    notes.append(reloaded(models["bert small"], inputs))
    if there:
        lines += [
            faster("torch-pruning's half, the same way", "peer half", "bert"),
            ratio("a pass through our half; peer: torch-pruning's half", times["half"], times["peer half"], 1.02),
            ratio("cutting it; peer: torch-pruning, which weighs first", cuts["ours"], cuts["theirs"]),
        ]
        ours, theirs = (sum(p.numel() for p in models[name].parameters()) for name in ("half", "peer half"))
        notes.append(f"Parameters of our half {ours:,}, of torch-pruning's {theirs:,}.")
    else:
        notes.append("torch-pruning is not installed (extra `bench`): no peer.")
    return lines, notes


def main() -> None:
    options = arguments(__doc__ or "")
    before, there = load(), find_spec("torch_pruning") is not None
    lines, notes = speeds(options.small, options.rounds, there)
    show(TITLE, [*lines, *gated_step(options.small, options.rounds)], options, before, notes)


if __name__ == "__main__":
    main()
