"""What a model really costs: counted tensors, counted multiplications, and a latency with its spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils.flop_counter import FlopCounterMode

from trainflat.compress.grouped import GroupedLinear
from trainflat.compress.integers import QuantizedLinear, plain_tensors, quantized
from trainflat.train.batches import to_device
from trainflat.train.compiled import unfused
from trainflat.train.evaluate import evaluating

__all__ = ["Cost", "cost"]

Size = Sequence[int]


def _recurrent(x: Size, *weights: Size) -> int:
    """Of a recurrent layer as one operation: each matrix once a token, in both directions and all layers that it holds."""
    return 2 * prod(x[:-1]) * sum(prod(weight) for weight in weights if len(weight) == 2)


PRODUCTS = {
    torch.ops.aten.mv: lambda a, x, **_: 2 * prod(a),
    torch.ops.aten.addmv: lambda y, a, x, **_: 2 * prod(a),
    torch.ops.aten.mkldnn_rnn_layer: lambda x, *given, **_: _recurrent(x, *given[:2]),
    torch.ops.aten._cudnn_rnn: lambda x, weights, *_, **__: _recurrent(x, *weights),
    # with 4-bit weights on a GPU: (m, k) times n rows packed in blocks of 8
    torch.ops.aten._weight_int4pack_mm: lambda x, w, *_, out_shape=None, **__: 2 * x[0] * x[1] * 8 * w[0],
}
"""What multiplies matrices and torch's counter does not know, from the sizes of its arguments: operations, two a product."""


@dataclass(frozen=True)
class Cost:
    """What one model costs on one batch, on one machine. `cost` measures it.

    Attributes:
        parameters: Weights and biases, integers included, tied ones once; buffers are not counted.
        nonzeros: Those that are not zero.
        bytes: Size of the safetensors file, header included, tied tensors once.
        multiply_adds: In the matrix products and convolutions of one forward pass over the whole batch.
        latency_ms: Median time of a forward pass over the batch, in milliseconds.
        latency_low_ms: Its 5th percentile.
        latency_high_ms: Its 95th percentile.
        runs: Forward passes that were timed.
        batch: Examples in the batch.
        length: Tokens of each, padding included; None for inputs without ``input_ids``.
        padding: Share of these that is padding; None as well.
        device: ``"cpu"``, or the name of the GPU.
        threads: Torch's threads within one operation while timing.
    """

    parameters: int
    nonzeros: int
    bytes: int
    multiply_adds: int
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    runs: int
    batch: int
    device: str
    threads: int
    length: int | None = None
    padding: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, for JSON."""
        return asdict(self)


def cost(model: nn.Module, inputs: Any, *, runs: int = 30, warmup: int = 3, threads: int | None = None) -> Cost:
    """Count and time one model on one batch of inputs, in evaluation mode and without gradients.

    Nothing is inferred from a nominal sparsity: a model that is merely masked has fewer ``nonzeros`` but the same
    ``bytes``, ``multiply_adds`` and latency as a dense one, because dense kernels multiply by zero as by anything
    else. What makes a model smaller and faster is int8 (`dynamic_int8`), or removing whole structures. Multiply-adds
    are counted as they run (``torch.utils.flop_counter``; attention as the two products that it is, recurrent layers by their
    matrices, 8-bit layers by a hook); element-wise work, norms and softmax are not counted.

    The model's mode and torch's number of threads are as before afterwards.

    Args:
        model: Float or quantized; stays where it is.
        inputs: What its forward takes: a tensor, or a dict of keyword tensors; moved to the model's device.
        runs: Timed forward passes, at least 1. Default: 30, enough for a 5th and a 95th percentile.
        warmup: Untimed ones before them: the first allocate memory and choose kernels.
        threads: Torch's threads while timing, on a CPU; default: as they are now.

    Raises:
        ValueError: If ``runs`` or ``threads`` is below 1 or ``warmup`` below 0, or ``inputs`` holds no tensor.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
        >>> c = cost(model, torch.ones(16, 8), runs=3)
        >>> c.parameters, c.multiply_adds, c.batch           # 8 * 4 + 4 * 2 weights, each used once for every example
        (40, 640, 16)
    """
    if runs < 1 or warmup < 0:
        raise ValueError(f"runs must be at least 1 and warmup at least 0, got {runs} and {warmup}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    inputs = to_device(inputs, device)
    batch = _batch(inputs)
    weights = list(_weights(model))

    def forward() -> None:
        _ = model(**inputs) if isinstance(inputs, dict) else model(inputs)

    with _quiet(model, threads), torch.no_grad():
        multiply_adds = _multiply_adds(model, forward)
        milliseconds = _time(forward, device, runs, warmup)
        used = torch.get_num_threads()
    low, median, high = np.percentile(milliseconds, [5, 50, 95]).tolist()
    return Cost(
        parameters=sum(weight.numel() for weight in weights),
        nonzeros=sum(int(torch.count_nonzero(weight)) for weight in weights),
        bytes=_bytes(model),
        multiply_adds=multiply_adds,
        latency_ms=median,
        latency_low_ms=low,
        latency_high_ms=high,
        runs=runs,
        batch=batch,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=used,
        **_tokens(inputs),
    )


def _weights(model: nn.Module) -> Iterator[Tensor]:
    """Every weight and bias once, those of quantized layers as integers, each one a number."""
    yield from map(_whole, model.parameters())
    for layer in quantized(model).values():
        yield layer.weight().int_repr()
        if (bias := layer.bias()) is not None:
            yield bias
    yield from (layer.whole() for layer in model.modules() if isinstance(layer, GroupedLinear))


def _whole(weight: Tensor) -> Tensor:
    """The numbers that a packed weight stands for, by the product that it takes part in; another one as it is."""
    if not is_traceable_wrapper_subclass(weight):
        return weight
    unit = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        return nn.functional.linear(unit, weight)


def _bytes(model: nn.Module) -> int:
    tensors = {name: tensor.cpu().contiguous() for name, tensor in plain_tensors(model).items()}
    return len(safetensors.torch.save(tensors, {"trainflat": "{}"}))


def _multiply_adds(model: nn.Module, forward: Callable[[], None]) -> int:
    """Half the floating-point operations that torch counts, and those of 8-bit layers, which it cannot see.

    Attention, and torch's own encoder layer around it, run in their plain form meanwhile: the fused kernels are not in torch's
    table and would count as zero.
    """
    in_integers = 0

    def count(layer: QuantizedLinear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal in_integers
        in_integers += inputs[0].numel() * layer.out_features

    hooks = [layer.register_forward_hook(count) for layer in quantized(model).values()]
    try:
        with (
            unfused(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False, custom_mapping=PRODUCTS) as counter,
        ):
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2 + in_integers


def _time(forward: Callable[[], None], device: torch.device, runs: int, warmup: int) -> list[float]:
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    milliseconds = []
    for run in range(warmup + runs):
        wait()
        start = time.perf_counter()
        forward()
        wait()
        if run >= warmup:
            milliseconds.append((time.perf_counter() - start) * 1e3)
    return milliseconds


@contextmanager
def _quiet(model: nn.Module, threads: int | None) -> Iterator[None]:
    """Evaluation mode and the wanted threads; every module's own mode and torch's threads as before afterwards."""
    before = torch.get_num_threads()
    with evaluating(model):
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _batch(inputs: Any) -> int:
    tensors = inputs.values() if isinstance(inputs, dict) else [inputs]
    size = next((len(tensor) for tensor in tensors if isinstance(tensor, Tensor) and tensor.ndim), None)
    if size is None:
        raise ValueError("inputs must be a tensor, or a dict with at least one tensor, whose first axis is the batch")
    return size


def _tokens(inputs: Any) -> dict[str, Any]:
    """How long the examples are, and what share of that is padding, where they are made of tokens."""
    if not isinstance(inputs, dict) or "input_ids" not in inputs:
        return {}
    mask = inputs.get("attention_mask")
    return {
        "length": inputs["input_ids"].shape[1],
        "padding": 0.0 if mask is None else 1 - float(mask.float().mean()),
    }
