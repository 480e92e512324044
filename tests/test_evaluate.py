from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainflat import train
from trainflat.testing.problem import problem, untouched


def accuracy(logits, labels):
    return {"accuracy": float((logits.argmax(-1) == labels).mean())}


def test_metrics_are_over_all_batches_together():
    net, (x, y) = problem()
    whole = train.evaluate(net, [(x, y)], accuracy)
    pieces = train.evaluate(net, [(x[:1], y[:1]), (x[1:20], y[1:20]), (x[20:], y[20:])], accuracy)
    assert pieces == whole
    assert whole["accuracy"] == float((net(x).argmax(-1) == y).float().mean())


def test_metrics_get_float32_logits_and_the_labels_in_order():
    net, (x, y) = problem(torch.bfloat16)
    seen = []
    train.evaluate(net, [(x[:5], y[:5]), (x[5:], y[5:])], lambda z, labels: seen.extend([z, labels]) or {})
    logits, labels = seen
    assert logits.dtype == np.float32
    assert logits.shape == (32, 3)
    assert labels.tolist() == y.tolist()


def test_dropout_is_off_and_no_graph_is_kept():
    net, (x, y) = problem(dropout=0.9)
    modes = []
    net.register_forward_hook(lambda module, args, out: modes.append((module.training, out.requires_grad)))
    assert train.evaluate(net, [(x, y)], accuracy) == train.evaluate(net, [(x, y)], accuracy)
    assert modes == [(False, False)] * 2


@pytest.mark.parametrize("training", [True, False])
def test_every_module_goes_back_to_its_own_mode(training):
    net, batch = problem(dropout=0.5)
    net.train(training)
    net[1].train(not training)  # a norm that somebody froze stays frozen
    with untouched(net, "evaluating leaves no trace"):
        train.evaluate(net, [batch], accuracy)
    assert net[1].training is not training


def test_a_dataloader_and_a_random_model_leave_the_random_stream_alone():
    net, (x, y) = problem()
    noisy = nn.Sequential(net, nn.LogSoftmax(-1))
    noisy.register_forward_hook(lambda module, args, out: out + torch.rand_like(out))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    train.evaluate(noisy, DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True), accuracy)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_the_mode_is_restored_when_the_model_fails():
    net, (x, y) = problem()
    with pytest.raises(RuntimeError):
        train.evaluate(net, [(x[:, :2], y)], accuracy)
    assert all(module.training for module in net.modules())


def test_nothing_to_evaluate_on_is_refused():
    with pytest.raises(ValueError, match="there is nothing to evaluate on: no batches were given"):
        train.evaluate(nn.Identity(), [], accuracy)


def test_inputs_by_keyword_and_outputs_with_logits_are_understood():
    class Model(nn.Module):
        def forward(self, ids, scale):
            return SimpleNamespace(logits=ids * scale)

    batch = ({"ids": torch.eye(3), "scale": torch.tensor(2.0)}, torch.tensor([0, 1, 2]))
    assert train.evaluate(Model(), [batch], accuracy) == {"accuracy": 1.0}
    assert torch.equal(train.logits(Model(), batch[0]), 2 * torch.eye(3))


@pytest.mark.parametrize("output", [lambda z: (z, z), lambda z: {"logits": z}], ids=["tuple", "dict"])
def test_an_output_without_logits_is_told(output):
    net = problem()[0]
    net.register_forward_hook(lambda module, args, out: output(out))
    for use in (train.cross_entropy, lambda model, batch: train.predict(model, [batch])):
        with pytest.raises(
            TypeError, match=r"the model gives a (tuple|dict); the logits are a tensor, or the \.logits"
        ):
            use(net, problem()[1])


def test_labels_that_are_no_tensor_are_told():
    net, (x, y) = problem()
    with pytest.raises(TypeError, match="the labels of a batch are a tensor; these are a list"):
        train.predict(net, [(x, y.tolist())])


def test_cross_entropy_is_the_mean_over_the_batch_in_nats():
    z, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    expected = -(z - z.logsumexp(-1, keepdim=True))[torch.arange(5), y].mean()
    torch.testing.assert_close(train.cross_entropy(nn.Identity(), (z, y)), expected)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_squared_error_compares_each_output_with_its_own_label(shape):
    """A (4, 1) output against (4,) labels broadcasts to 16 pairs where nobody takes care."""
    z, y = torch.arange(4.0).reshape(shape), torch.tensor([0, 1, 2, 4])
    assert train.mean_squared_error(nn.Identity(), (z, y)).item() == 0.25
