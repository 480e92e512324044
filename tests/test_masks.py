from __future__ import annotations

from copy import deepcopy
from itertools import repeat

import pytest
import torch
from torch import nn

from trainflat import flat, train
from trainflat.compress import Mask, magnitude, prune
from trainflat.testing.problem import equal, problem


def matrices(name, parameter):
    return parameter.ndim == 2


def half(net):
    return prune(magnitude(net), 0.5, within=Mask.dense(net, where=matrices))


def dead_weights(net, mask):
    params = dict(net.named_parameters())
    return torch.cat([params[name][~alive] for name, alive in mask.items()])


def hooks(net):
    return [len(p._post_accumulate_grad_hooks or {}) for p in net.parameters()]


# on a model


def test_pruned_weights_and_their_gradients_are_zero_and_the_others_as_they_were():
    net, batch = problem()
    twin, mask = deepcopy(net), half(net)
    with mask.on(net):
        train.cross_entropy(net, batch).backward()
    assert not dead_weights(net, mask).any()
    mask.apply_to(twin)
    train.cross_entropy(twin, batch).backward()
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        alive = mask[name] if name in mask else torch.ones_like(p, dtype=torch.bool)
        assert torch.equal(p, q)
        assert torch.equal(p.grad, torch.where(alive, q.grad, 0.0))
        assert q.grad[~alive].any() or name not in mask, "without the mask they would have moved"


def test_gradients_are_masked_in_every_accumulated_pass():
    net, batch = problem()
    mask = half(net)
    with mask.on(net):
        for _ in range(3):
            train.cross_entropy(net, batch).backward()
            assert not torch.cat([p.grad[~mask[name]] for name, p in net.named_parameters() if name in mask]).any()


def test_nothing_is_wrapped_and_the_state_dict_keeps_its_keys():
    net, _ = problem()
    modules, keys, objects = list(net.modules()), list(net.state_dict()), list(net.parameters())
    with half(net).on(net) as same:
        assert same is net
        assert list(net.modules()) == modules
        assert list(net.state_dict()) == keys
        assert all(p is q for p, q in zip(net.parameters(), objects, strict=True))
        deepcopy(net)


def test_hooks_are_removed_afterwards():
    net, batch = problem()
    before = hooks(net)
    with half(net).on(net):
        assert hooks(net) != before
    assert hooks(net) == before
    train.cross_entropy(net, batch).backward()
    assert dict(net.named_parameters())["0.weight"].grad.all()


def test_hooks_are_removed_after_an_exception():
    net, _ = problem()
    before = hooks(net)
    with pytest.raises(KeyboardInterrupt), half(net).on(net):
        raise KeyboardInterrupt
    assert hooks(net) == before


def test_restoring_under_a_mask_brings_the_living_weights_back_alone():
    net, batch = problem()
    start, mask = train.snapshot(net), half(net)
    expected = {n: torch.where(mask[n], tensor, 0.0) if n in mask else tensor for n, tensor in start.items()}
    net[4].weight.requires_grad_(False)
    with mask.on(net):
        train.fit(net, train.cross_entropy, repeat(batch), torch.optim.SGD(net.parameters(), 0.1), steps=2)
        train.restore(net, start)
        assert equal(expected, train.snapshot(net))
        twin = deepcopy(net)
        train.restore(twin, start)
        assert equal(start, train.snapshot(twin)), "a copy is not under the mask"
    train.restore(net, start)
    assert equal(start, train.snapshot(net)), "the mask is off"


def test_of_two_masks_on_a_model_each_holds_while_it_is_on():
    net, _ = problem()
    start, names = train.snapshot(net), ("0.weight", "4.weight")
    first, second = (Mask({name: torch.zeros_like(net.get_parameter(name), dtype=torch.bool)}) for name in names)
    with first.on(net):
        with second.on(net):
            train.restore(net, start)
            assert [bool(net.get_parameter(name).any()) for name in names] == [False, False]
        train.restore(net, start)
        assert [bool(net.get_parameter(name).any()) for name in names] == [False, True]


def test_a_gradient_of_nan_at_a_pruned_weight_is_zero():
    w = nn.Linear(2, 1, bias=False)
    mask = Mask({"weight": torch.tensor([[False, True]])})
    with mask.on(w):
        (w.weight * torch.tensor([[float("nan"), 1.0]])).sum().backward()
    assert w.weight.grad.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("rule", [flat.plain, flat.sam])
def test_a_parameter_that_is_let_go_under_a_mask_stays_pruned(rule):
    net, batch = problem()
    net[0].requires_grad_(False)
    mask, before = half(net), train.snapshot(net)
    with mask.on(net):
        assert not net[0].weight.requires_grad
        adam = torch.optim.Adam(net.parameters(), lr=0.01)
        for step in train.loop(net, train.cross_entropy, repeat(batch), adam, steps=4, gradient=rule()):
            net[0].requires_grad_(step.index >= 1)
        assert not dead_weights(net, mask).any()
        assert (net[0].weight != before["0.weight"])[mask["0.weight"]].all()
    assert not any(hooks(net))


def test_a_sparse_gradient_under_a_mask_is_told():
    net = nn.Embedding(10, 3, sparse=True)
    with half(net).on(net), pytest.raises(TypeError, match="make the embedding with sparse=False"):
        net(torch.tensor([1, 2])).sum().backward()


def test_a_frozen_parameter_is_pruned_like_any_other():
    net, batch = problem()
    net[0].weight.requires_grad_(False)
    mask = half(net)
    with mask.on(net):
        train.cross_entropy(net, batch).backward()
    assert not dead_weights(net, mask).any()
    assert net[0].weight.grad is None


MOMENTA = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
}


def trained_dense(make):
    net, batch = problem()
    optimizer = make(net.parameters())
    train.fit(net, train.cross_entropy, repeat(batch), optimizer, steps=3)
    return net, batch, optimizer, half(net)


@pytest.mark.parametrize("make", MOMENTA.values(), ids=MOMENTA)
@pytest.mark.parametrize("rule", [flat.plain, flat.sam])
def test_an_optimizer_with_momentum_leaves_pruned_weights_at_zero_if_it_is_given(make, rule):
    net, batch, optimizer, mask = trained_dense(make)
    with mask.on(net, optimizer=optimizer):
        for _ in train.loop(net, train.cross_entropy, repeat(batch), optimizer, steps=5, gradient=rule()):
            assert not dead_weights(net, mask).any()
    living = optimizer.state[net[0].weight].values()
    assert all(value[mask["0.weight"]].any() for value in living if value.ndim == 2), "the living keep their momentum"


MIXING = {
    "Muon": lambda params: torch.optim.Muon([p for p in params if p.ndim == 2], lr=0.1),
    "LBFGS": lambda params: torch.optim.LBFGS(params, lr=0.1, max_iter=3),
}


@pytest.mark.parametrize("make", MIXING.values(), ids=MIXING)
@pytest.mark.parametrize("before", [0, 3])
def test_an_optimizer_that_mixes_weights_leaves_pruned_ones_at_zero_if_it_is_given(make, before):
    net, batch = problem()
    optimizer = make(net.parameters())

    def closure():
        optimizer.zero_grad()
        loss = train.cross_entropy(net, batch)
        loss.backward()
        return loss

    for _ in range(before):
        optimizer.step(closure)
    mask = half(net)
    with mask.on(net, optimizer):
        for _ in range(3):
            start = net[0].weight.detach().clone()
            optimizer.step(closure)
            assert not dead_weights(net, mask).any()
            assert not torch.equal(net[0].weight, start)
    optimizer.step(closure)
    assert dead_weights(net, mask).any(), "afterwards it is free"


class Wrapped(torch.optim.Optimizer):
    """As accelerate's: it is an optimizer by type, and has nothing of one but what is inside."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def state(self):
        return self.optimizer.state


def test_an_optimizer_in_a_wrapper_is_reached():
    net, batch, optimizer, mask = trained_dense(MIXING["Muon"])
    with mask.on(net, Wrapped(optimizer)):
        train.fit(net, train.cross_entropy, repeat(batch), optimizer, steps=3)
        assert not dead_weights(net, mask).any()


@pytest.mark.parametrize("make", MOMENTA.values(), ids=MOMENTA)
def test_an_optimizer_with_momentum_moves_pruned_weights_if_it_is_not_given(make):
    """The demonstration: why `on` takes the optimizer, and why each round of IMP makes a new one."""
    net, batch, optimizer, mask = trained_dense(make)
    with mask.on(net):
        train.fit(net, train.cross_entropy, repeat(batch), optimizer, steps=1)
        assert dead_weights(net, mask).any()


@pytest.mark.parametrize("method", ["on", "apply_to"])
@pytest.mark.parametrize(
    ("alive", "message"),
    [
        (
            {"absent": torch.ones(2, dtype=torch.bool)},
            "the mask is of another model: this one has no parameter 'absent'",
        ),
        (
            {"0.weight": torch.ones(2, dtype=torch.bool)},
            r"the mask of '0.weight' has shape \(2,\), the parameter \(16, 6\)",
        ),
    ],
)
def test_a_mask_of_another_model_is_refused_and_changes_nothing(method, alive, message):
    net, _ = problem()
    before, registered = train.snapshot(net), hooks(net)
    mask = Mask({"4.weight": torch.zeros(3, 16, dtype=torch.bool), **alive})
    with pytest.raises(ValueError, match=message):
        mask.apply_to(net) if method == "apply_to" else mask.on(net).__enter__()
    assert equal(before, train.snapshot(net))
    assert hooks(net) == registered


# as a value


def test_a_mask_cannot_be_changed():
    alive = {"a": torch.tensor([True, False])}
    mask = Mask(alive)
    alive["b"] = torch.tensor([True])
    assert list(mask) == ["a"]
    with pytest.raises(TypeError):
        mask["a"] = torch.tensor([True, True])
    with pytest.raises(TypeError):
        del mask["a"]
    with pytest.raises(AttributeError):
        mask.size = 3
    with pytest.raises(TypeError):
        hash(mask)


def test_training_under_a_mask_does_not_change_it():
    net, batch = problem()
    mask = half(net)
    before = {name: tensor.clone() for name, tensor in mask.items()}
    with mask.on(net):
        train.fit(net, train.cross_entropy, repeat(batch), torch.optim.SGD(net.parameters(), 0.1), steps=2)
    assert equal(before, dict(mask))


def test_a_mask_is_dense_over_what_was_selected():
    net, _ = problem()
    mask = Mask.dense(net, where=matrices)
    assert list(mask) == ["0.weight", "4.weight"]
    assert (mask.size, mask.alive, mask.sparsity, mask.density) == (16 * 6 + 3 * 16, 144, 0.0, 1.0)
    assert mask.sparsity_in(net) == 0.0


def test_sparsity_is_a_share_of_the_masked_weights_and_of_all():
    net, _ = problem()
    mask = half(net)
    total = sum(p.numel() for p in net.parameters())
    assert mask.sparsity == mask.density == 0.5
    assert mask.sparsity_in(net) == 72 / total
    mask.apply_to(net)
    assert sum(int((p == 0).sum()) for p in net.parameters() if p.ndim == 2) == 72
    assert repr(mask) == "Mask(2 tensors, 144 weights, 50.0% pruned)"


def test_masks_are_equal_by_content():
    a = Mask({"w": torch.tensor([True, False])})
    assert a == Mask({"w": torch.tensor([True, False])})
    assert a != Mask({"w": torch.tensor([True, True])})
    assert a != Mask({"v": torch.tensor([True, False])})
    assert a != Mask({"w": torch.tensor([[True, False]])})
    assert a != {"w": torch.tensor([True, False])}


def test_overlap_is_intersection_over_union():
    a = Mask({"v": torch.tensor([True, True, False]), "w": torch.tensor([True])})
    b = Mask({"v": torch.tensor([False, True, True]), "w": torch.tensor([True])})
    none = Mask({"v": torch.zeros(3, dtype=torch.bool), "w": torch.tensor([False])})
    assert a.overlap(b) == b.overlap(a) == 2 / 4
    assert a.overlap(a) == none.overlap(none) == 1.0
    assert a.overlap(none) == 0.0
    assert a & b == Mask({"v": torch.tensor([False, True, False]), "w": torch.tensor([True])})


@pytest.mark.parametrize("combine", [lambda a, b: a & b, lambda a, b: a.overlap(b)])
def test_masks_of_different_models_are_not_combined(combine):
    a = Mask({"w": torch.tensor([True])})
    for other in (Mask({"v": torch.tensor([True])}), Mask({"w": torch.tensor([True]), "x": torch.tensor([True])})):
        for one, two in ((a, other), (other, a)):
            with pytest.raises(ValueError, match=r"the two masks are of different models: '.' is in only one of them"):
                combine(one, two)


@pytest.mark.parametrize("combine", [lambda a, b: a & b, lambda a, b: a.overlap(b)])
def test_masks_of_different_shapes_are_not_combined(combine):
    one, row = Mask({"w": torch.tensor([True])}), Mask({"w": torch.tensor([[True, False]])})
    for a, b, shapes in ((one, row, r"\(1,\) and \(1, 2\)"), (row, one, r"\(1, 2\) and \(1,\)")):
        with pytest.raises(ValueError, match=rf"the two masks are of different models: 'w' has shapes {shapes}"):
            combine(a, b)


def test_a_mask_without_weights_has_pruned_nothing():
    mask = Mask({"w": torch.ones(0, 3, dtype=torch.bool)})
    assert (mask.size, mask.density, mask.sparsity) == (0, 1.0, 0.0)
    assert repr(mask) == "Mask(1 tensors, 0 weights, 0.0% pruned)"


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ([True], "list"),
        ([("w", torch.tensor([True]))], "list"),
        (torch.tensor([True]), "Tensor"),
        (nn.Linear(2, 2), "Linear"),
    ],
)
def test_what_is_no_mapping_is_no_mask(given, got):
    with pytest.raises(TypeError, match=f"a mask is made of {{name: bool tensor}}, got {got}; .*Mask.dense"):
        Mask(given)


def test_what_is_no_mask_is_refused():
    with pytest.raises(TypeError, match=r"the mask of 'w' must be a bool tensor, got list"):
        Mask({"w": [True, False]})
    with pytest.raises(TypeError, match=r"the mask of 'w' must be bool, got torch\.float32"):
        Mask({"w": torch.ones(2)})
    with pytest.raises(ValueError, match="a mask needs at least one tensor; does `where` select any parameter"):
        Mask.dense(nn.Linear(2, 2), where=lambda name, p: False)
