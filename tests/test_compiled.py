"""Models that torch.compile has compiled: what hooks do to them, and read in them, is done and read all the same."""

from __future__ import annotations

import subprocess
import sys

# in a process of its own, since torch cannot compile what checks the shapes in the tests' signatures
COMPARED = """
import copy
import torch
from trainflat import compress, flat, train
from trainflat.tasks import zoo

plain, x, labels = torch.nn.Sequential(zoo.vit_small()).eval(), torch.rand(4, 8, 8), torch.tensor([0, 1, 2, 3])
teacher = zoo.vit_small(classes=10).eval()
gates = compress.Gates(compress.structure(plain))
gates.log_alpha["head"].data[0, :3] = -9


def gated(model):
    with torch.no_grad(), gates.on(model):
        return model(x)


def moved(model):
    inner = getattr(model, "_orig_mod", model)
    held = compress.Movement(train.cross_entropy, inner, lambda name, p: p.ndim == 2, sparsity=0.5)
    with torch.no_grad(), held.on(inner):
        return model(x)


def distilled(model):
    torch.manual_seed(0)
    return compress.distill(train.cross_entropy, model, teacher)(teacher, (x, labels)).detach()


def learnt(model):
    torch.manual_seed(0)
    return compress.distill(train.cross_entropy, teacher, model)(model, (x, labels)).detach()


def calibrated(model):
    with torch.no_grad():
        return compress.static_int8(model, [(x, labels)])(x)


def seen(model):
    names = [name for name, _ in model.named_modules() if name.endswith("layers.1")]
    return flat.features(model, [(x, labels)], names[0])


with torch.no_grad():
    before = plain(x)
for ask in (gated, moved, distilled, learnt, calibrated, seen):
    expected = ask(plain)
    for ran in (False, True):
        torch._dynamo.reset()
        model = copy.deepcopy(plain)
        compiled = torch.compile(model, backend="eager")
        if ran:
            compiled(x).sum().backward()
            with torch.no_grad():
                compiled(x)
        same = torch.allclose(ask(compiled), expected, atol=1e-5)
        with torch.no_grad():
            after = torch.allclose(compiled(x), before, atol=1e-5)
        print(ask.__name__, ran, same, after)
assert not torch.allclose(gated(plain), before, atol=1e-3)
"""


def test_what_hooks_do_to_a_compiled_model_is_done_whether_it_ran_before_or_not():
    ran = subprocess.run([sys.executable, "-c", COMPARED], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    asked = ("gated", "moved", "distilled", "learnt", "calibrated", "seen")
    assert ran.stdout.split("\n")[:-1] == [f"{ask} {before} True True" for ask in asked for before in (False, True)]
