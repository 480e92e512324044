"""The card of an exported model: what it was made from, what it says, what it takes, and how to run it in ten lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainflat import compress
from trainflat.export.source import GRAPH, Source

__all__ = ["card"]

CARD = """---
library_name: onnx
---

# {title}

{facts}

| file | what it is | MB | ms | largest difference to torch | same answer | {metric} |
|---|---|---:|---:|---:|---:|---:|
{files}

Milliseconds: median of one example{length}, {threads}, {machine}; torch itself took {torch:.2f}. {others}{warning}
{run}"""

RUN = """
## Run it

```python
import json, numpy, onnxruntime, pathlib
from tokenizers import Tokenizer

about, tokenizer = json.loads(pathlib.Path("export.json").read_text()), Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation(about["max_length"])
session = onnxruntime.InferenceSession(about["model"], providers=["CPUExecutionProvider"])
text = tokenizer.encode({example})
made = {{"input_ids": text.ids, "attention_mask": text.attention_mask, "token_type_ids": text.type_ids}}
logits = session.run(None, {{name: numpy.array([made[name]]) for name in about["inputs"]}})[0]
print({answer})
```
"""


def card(source: Source, about: Mapping[str, Any]) -> str:
    """The card in Markdown."""
    timed, files = about["timed"], about["files"]
    scores = {name: one.get("scored") for name, one in files.items()}
    first = next((one for one in scores.values() if one), None)
    answer = 'about["labels"][int(logits[0].argmax())]' if about["labels"] else _number(about["score"])
    note = (
        []
        if about["int8"]["reduce_range"]
        else ["its 8-bit weights use all 8 bits: on x86 without VNNI sums may saturate"]
    )
    return CARD.format(
        title=f"{type(source.model).__name__} as ONNX",
        facts="\n".join(f"- {name}: {said}" for name, said in _facts(source, about, first).items() if said),
        metric=first["metric"] if first else "metric",
        files="\n".join(_row(name, one, about) for name, one in files.items()),
        length=f" of {timed['length']} tokens" if timed["length"] else "",
        threads=f"{timed['threads']} thread{'s' * (timed['threads'] > 1)}",
        machine=timed["on"],
        torch=about["torch"]["latency_ms"],
        others=f"`export.json` names {about['model']} as the one to run; the other may be deleted.",
        warning=f"\n\nBeware: {note[0]}; export again with --reduce-range for such a machine.\n" if note else "\n",
        run=RUN.format(example='"a text", "its pair"' if source.pair else '"a text"', answer=answer)
        if source.words
        else "",
    )


def _facts(source: Source, about: Mapping[str, Any], first: Mapping[str, Any] | None) -> dict[str, str]:
    shape = getattr(source.model, "trainflat_shape", None)
    kept = _of_readme(source.folder / "README.md")
    metric = kept.get("Metric", "not measured again here" if source.task is None else "not measured")
    chosen = about["files"][about["model"]].get("scored")
    if chosen:
        metric = (
            f"{chosen['metric']} {100 * chosen['value']:.1f}{_interval(chosen)} on {chosen['rows']:,} held-out examples"
        )
        metric += f"; the torch model {100 * chosen['torch']:.1f}"
    return {
        "Data": getattr(source.task, "note", None) or kept.get("Data", "not known to the folder it was exported from"),
        "Metric": metric + "".join(f" ({remark})" for remark in about["remarks"]),
        "Sparsity": _sparsity(source),
        "Shape": f"hidden {shape.hidden}, heads {list(shape.heads)}, neurons {list(shape.neurons)}" if shape else "",
        "Labels": ", ".join(" ".join(label.split()) for label in about["labels"]),
        "Size and latency": "in the table, measured",
    }


def _row(name: str, one: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    what = "float32" if name == GRAPH else f"int8, dynamic, {about['int8']['written']}"
    scored = one.get("scored")
    value = f"{100 * scored['value']:.1f}{_interval(scored)}" if scored else "—"
    return (
        f"| {name} | {what} | {one['bytes'] / 1e6:.1f} | {one['latency_ms']:.2f} | {one['difference']:.2g} (of "
        f"{one['largest']:.2g}) | {100 * one['agree']:.0f} % of {one['rows']} | {value} |"
    )


def _interval(scored: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in scored.get("interval") or (0, 0))
    return f" [{low:.1f}, {high:.1f}]" if "interval" in scored else ""


def _sparsity(source: Source) -> str:
    """Counted in the tensors: zeros among the weights of all matrices."""
    tensors = [tensor for tensor in compress.plain_tensors(source.model).values() if tensor.ndim >= 2]
    zeros, counted = sum(int((t == 0).sum()) for t in tensors), sum(t.numel() for t in tensors)
    asked = source.row.get("sparsity")
    return (
        f"{100 * zeros / max(counted, 1):.1f} % of the {counted:,} numbers in matrices and embeddings are zero, "
        "stored and multiplied all the same"
    ) + (f"; pruned to {100 * asked:.0f} % of what may be" if asked and not source.row.get("shape") else "")


def _of_readme(path: Path) -> dict[str, str]:
    """The lines ``- Data: ...`` of the card that came with the model."""
    if not path.is_file():
        return {}
    lines = [line[2:].partition(": ") for line in path.read_text(encoding="utf-8").splitlines() if line[:2] == "- "]
    return {name: said for name, colon, said in lines if colon}


def _number(score: Mapping[str, float]) -> str:
    return f"{score['mean']:.6g} + {score['deviation']:.6g} * float(logits[0, 0])"
