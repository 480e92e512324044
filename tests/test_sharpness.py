"""Sharpness in a random subspace box against brute force, and the projection against the matrix held whole."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trainflat import flat, train
from trainflat.compress import Mask
from trainflat.flat.directions import MIDDLE, Directions
from trainflat.testing.problem import problem, untouched
from trainflat.train import NonFiniteLoss


class Quadratic(nn.Module):
    """f(w) = c + w'Hw / 2, in float64."""

    def __init__(self, size: int, c: float = 0.0, start: float = 1.0):
        super().__init__()
        draw = np.random.default_rng(0)
        root = draw.normal(size=(size, size))
        self.c, self.h = c, torch.from_numpy(root @ root.T / size)
        self.w = nn.Parameter(start * torch.from_numpy(draw.normal(size=size)))

    def objective(self, model, batch):
        return self.c + model.w @ self.h @ model.w / 2

    def loss(self, **options) -> flat.Loss:
        return flat.Loss(self, self.objective, [(None, torch.zeros(1))], **options)

    def rise(self, moved: np.ndarray) -> float:
        """f(w + moved) - f(w)."""
        w, h = self.w.detach().numpy(), self.h.numpy()
        return float((w + moved) @ h @ (w + moved) - w @ h @ w) / 2


def whole(size: int, count: int, *, seed: int = 0, alive=None) -> np.ndarray:
    """The matrix A held whole, by its definition."""
    raw = np.random.SFC64(train.derive("directions", seed)).random_raw(size * -(-count // 4))
    entries = (raw.view(np.int16).reshape(size, -1)[:, :count] + MIDDLE) / 2**16
    entries *= 1.0 if alive is None else alive.numpy()[:, None]
    return entries / np.linalg.norm(entries, axis=0)


def of_problem(mask=None, dtype=torch.float64, dropout=0.0):
    """A small net and its loss on two batches of different size."""
    net, (x, y) = problem(dtype, dropout)
    return net, flat.Loss(net, train.cross_entropy, [(x[:20], y[:20]), (x[20:], y[20:])], mask=mask)


def half(net: nn.Module) -> Mask:
    """Half of the two matrices' weights pruned, and the model zero there."""
    draw = torch.Generator().manual_seed(1)
    mask = Mask({n: torch.rand(p.shape, generator=draw) < 0.5 for n, p in net.named_parameters() if p.ndim == 2})
    mask.apply_to(net)
    return mask


# the projection


@pytest.mark.parametrize(("size", "count"), [(500, 1), (500, 6), (333, 100), (40, 40)])
@pytest.mark.parametrize("masked", [False, True])
def test_directions_gram_and_pseudo_inverse_equal_those_of_the_matrix_held_whole(size, count, masked):
    draw = torch.Generator().manual_seed(0)
    alive = (torch.rand(size, generator=draw) < 0.7) | (torch.arange(size) < count) if masked else None
    a = Directions(size, count, seed=3, alive=alive, dtype=torch.float64, rows=64)
    matrix = whole(size, count, seed=3, alive=alive)
    w, z = (
        torch.randn(size, generator=draw, dtype=torch.float64),
        torch.randn(count, generator=draw, dtype=torch.float64),
    )
    np.testing.assert_allclose(a.gram, matrix.T @ matrix, rtol=1e-12)
    np.testing.assert_allclose(a.up(z), matrix @ z.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(a.down(w), matrix.T @ w.numpy(), rtol=1e-9, atol=1e-12)
    by_lstsq = np.linalg.lstsq(matrix, w.numpy())[0]
    bound = 1e-12 * np.linalg.cond(matrix) ** 2 * np.abs(by_lstsq).max()  # the Gram matrix squares the condition number
    np.testing.assert_allclose(a.coordinates(w), by_lstsq, atol=bound)


def test_float32_is_good_enough_for_many_weights():
    """A product sums 100,000 numbers with a common part; only the centred part is summed in float32."""
    a, matrix = Directions(100_000, 10, seed=0), whole(100_000, 10)
    w = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 0.04
    np.testing.assert_allclose(a.gram, matrix.T @ matrix, rtol=2e-6)
    exact = np.linalg.lstsq(matrix, w.double().numpy())[0]
    np.testing.assert_allclose(a.coordinates(w), exact, atol=1e-4 * np.abs(exact).max())


def test_the_same_seed_gives_the_same_matrix_in_blocks_of_any_size():
    z = torch.linspace(-1, 1, 10)
    drawn = [Directions(300, 10, seed=5, rows=rows).up(z) for rows in (1, 7, 64, 300, 4096)]
    for other in drawn[1:]:
        torch.testing.assert_close(other, drawn[0], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(Directions(300, 10, seed=6).up(z), drawn[0], atol=1e-3)


def test_a_mask_does_not_change_the_directions_of_the_live_coordinates():
    alive = torch.arange(1000) % 3 > 0
    one = torch.tensor([0.0, 1.0])
    column = Directions(1000, 2, seed=0, dtype=torch.float64).up(one)
    masked = Directions(1000, 2, seed=0, alive=alive, dtype=torch.float64).up(one)
    assert (masked[~alive] == 0).all()
    ratio = masked[alive] / column[alive]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    assert torch.linalg.vector_norm(masked).item() == pytest.approx(1)


def test_entries_are_uniform_and_columns_share_their_mean():
    a = Directions(100_000, 2, seed=0, dtype=torch.float64)
    column = a.up(torch.tensor([1.0, 0.0]))
    entries = column / column.max()
    counts = torch.histc(entries, bins=10, min=0, max=1) / len(entries)
    assert (counts - 0.1).abs().max() < 4 * (0.09 / len(entries)) ** 0.5
    assert a.gram[0, 1] == pytest.approx(0.75, abs=0.01)  # (1/2)^2 / (1/3)


@pytest.mark.parametrize("count", [0, 6])
def test_more_directions_than_live_weights_are_refused(count):
    with pytest.raises(ValueError, match=f"{count} directions among 5 weights that may move: give between 1 and 5"):
        Directions(10, count, seed=0, alive=torch.arange(10) < 5)


# the measure


@pytest.mark.parametrize(("size", "count"), [(12, 1), (12, 4), (30, 8)])
@pytest.mark.parametrize("eps", [5e-3, 5e-2])
def test_the_rise_over_the_box_equals_the_highest_corner_by_brute_force(size, count, eps):
    """A convex function is largest at a corner of the box. Away from its minimum it has one that nothing else comes near."""
    model = Quadratic(size, c=0.5, start=3.0)
    matrix = whole(size, count)
    reach = eps * (np.abs(np.linalg.lstsq(matrix, model.w.detach().numpy())[0]) + 1)
    corners = [matrix @ (reach * signs) for signs in itertools.product((-1, 1), repeat=count)]
    base = model.rise(np.zeros(size)) + model.objective(model, None).item()
    expected = 100 * max(map(model.rise, corners)) / (1 + base)
    found = flat.sharpness(model.loss(), eps=[eps], directions=count, max_iterations=50)
    assert found == {eps: pytest.approx(expected, rel=1e-6)}


def test_ten_iterations_never_leave_the_box_and_never_fall():
    model = Quadratic(30)
    matrix, seen = whole(30, 8), []

    def watched(net, batch):
        z = np.linalg.lstsq(matrix, (net.w.detach() - start).numpy())[0]
        seen.append(np.abs(z / reach).max())
        return model.objective(net, batch)

    start = model.w.detach().clone()
    reach = 0.1 * (np.abs(np.linalg.lstsq(matrix, start.numpy())[0]) + 1)
    found = flat.sharpness(flat.Loss(model, watched, [(None, torch.zeros(1))]), eps=[0.1], directions=8)
    assert found[0.1] >= 0
    assert 2 <= len(seen) <= 40
    assert max(seen) <= 1 + 1e-9


def test_a_smaller_box_is_flatter_down_to_nothing():
    _, loss = of_problem()
    found = flat.sharpness(loss, eps=[1e-1, 1e-2, 1e-4, 1e-8], directions=10)
    values = list(found.values())
    assert values == sorted(values, reverse=True)
    assert 0 <= values[-1] < 1e-5
    assert values[2] > 0  # the projected gradient is far below SciPy's absolute 1e-5 times the box, and still it goes


def test_a_minimum_is_not_taken_for_flat_since_its_gradient_is_tiny():
    """SciPy's own tolerances would stop here at once, however steep it is a little further on."""
    model = Quadratic(12, start=1e-7)
    matrix = whole(12, 3)
    _, gradient = model.loss().gradient()
    assert np.abs(matrix.T @ gradient.numpy()).max() < 1e-6
    highest = max(model.rise(matrix @ np.array(signs)) for signs in itertools.product((-1, 1), repeat=3))
    assert flat.sharpness(model.loss(), eps=[1.0], directions=3)[1.0] == pytest.approx(100 * highest, rel=1e-3)


def test_the_same_seed_gives_the_same_number_and_another_one_another():
    _, loss = of_problem()
    one, again, other = (flat.sharpness(loss, eps=[1e-2], directions=5, seed=seed)[1e-2] for seed in (0, 0, 1))
    assert one == again != other


def test_inside_autocast_the_loss_is_that_of_the_weights_it_is_asked_at():
    net, batch = problem()
    loss = flat.Loss(net, train.cross_entropy, [batch])
    point = loss.weights() + 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        here = loss.value()
        with loss.at(point):
            there = loss.value()
        assert loss.value() == here
        sharp = flat.ascent_sharpness(loss, rho=0.5)
    with loss.at(point):
        exact = loss.value()
    assert there == pytest.approx(exact, rel=0.02)
    assert abs(there - here) > 10 * abs(there - exact)
    assert sharp == pytest.approx(flat.ascent_sharpness(loss, rho=0.5), rel=0.1)


def test_under_inference_mode_it_is_the_same():
    _, loss = of_problem()
    found = flat.sharpness(loss, eps=[1e-2], directions=3)
    with torch.inference_mode():
        assert flat.sharpness(loss, eps=[1e-2], directions=3) == found


def test_how_the_data_is_cut_into_batches_changes_nothing():
    net, (x, y) = problem(torch.float64)
    found = [
        flat.sharpness(flat.Loss(net, train.cross_entropy, batches), eps=[1e-2], directions=5)[1e-2]
        for batches in ([(x, y)], [(x[:31], y[:31]), (x[31:], y[31:])])
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-9)


@pytest.mark.parametrize("measure", ["sharpness", "ascent"])
def test_frozen_coordinates_never_move_and_without_a_mask_they_do(measure):
    net, _ = problem(torch.float64)
    mask, moved = half(net), []

    def watched(model, batch):
        moved.append(any(bool((p[~mask[n]] != 0).any()) for n, p in model.named_parameters() if n in mask))
        return train.cross_entropy(model, batch)

    _, batch = problem(torch.float64)
    found = []
    for frozen in (mask, None):
        loss = flat.Loss(net, watched, [batch], mask=frozen)
        if measure == "sharpness":
            found.append(flat.sharpness(loss, eps=[1e-2], directions=5)[1e-2])
        else:
            found.append(flat.ascent_sharpness(loss))
        assert any(moved) == (frozen is None)
    assert found[0] != found[1]


def test_the_ascent_equals_one_step_of_sam_on_the_whole_set():
    net, loss = of_problem()
    _, (x, y) = problem(torch.float64)
    seen = []

    def closure():
        value = train.cross_entropy(net, (x, y))
        value.backward()
        seen.append(value.item())
        return value.detach()

    net.eval()
    flat.sam(rho=0.3)(closure, dict(net.named_parameters()), 0.0)
    assert flat.ascent_sharpness(loss, rho=0.3) == pytest.approx(seen[1] - seen[0], rel=1e-9)
    assert flat.ascent_sharpness(loss, rho=0.0) == 0


# no trace


MEASURES = {
    "sharpness": lambda loss: flat.sharpness(loss, eps=[1e-2], directions=5),
    "ascent": flat.ascent_sharpness,
    "eigenvalue": lambda loss: flat.top_eigenvalue(loss, max_iterations=3),
    "trace": lambda loss: flat.trace(loss, probes=2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("measure", MEASURES)
def test_measuring_leaves_no_trace_and_draws_no_dropout(measure, dtype):
    net, loss = of_problem(dtype=dtype, dropout=0.5)
    loss.gradient()
    train.cross_entropy(net, loss.batches[0]).backward()
    memory = [(p.data_ptr(), p.grad.data_ptr()) for p in net.parameters()]
    net[0].eval()
    with untouched(net, measure):
        found = MEASURES[measure](loss)
    assert memory == [(p.data_ptr(), p.grad.data_ptr()) for p in net.parameters()]
    net.train()
    assert MEASURES[measure](loss) == found


@pytest.mark.parametrize("measure", MEASURES)
def test_measuring_leaves_no_gradient_in_what_the_objective_learns(measure):
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor, self.unused = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(1.0))

        def forward(self, model, batch):
            return self.factor * train.cross_entropy(model, batch)

    net, batch = problem()
    objective = Weighted()
    objective.factor.grad = torch.tensor(5.0)
    MEASURES[measure](flat.Loss(net, objective, [batch]))
    assert objective.factor.grad.item() == 5.0
    assert objective.unused.grad is None


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_that_is_stopped_leaves_no_trace_either(measure):
    class Stop(Exception):
        pass

    def after():
        raise Stop

    net, loss = of_problem(dropout=0.5)
    loss.after = after
    with untouched(net, measure), pytest.raises(Stop):
        MEASURES[measure](loss)


def test_what_is_not_trainable_stays_and_what_the_loss_does_not_use_has_no_gradient():
    net, batch = problem(torch.float64)
    net.add_module("unused", nn.Identity())
    net.unused.register_parameter("w", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    net[0].weight.requires_grad_(False)
    loss = flat.Loss(net, lambda model, batch: train.cross_entropy(model[:5], batch), [batch])
    assert loss.size == sum(p.numel() for p in net.parameters()) - net[0].weight.numel()
    _, gradient = loss.gradient()
    assert (gradient[-3:] == 0).all()
    assert (loss.hessian_times(torch.ones_like(gradient))[-3:] == 0).all()


def test_the_loss_and_its_gradient_are_those_of_the_set_in_one_piece():
    net, loss = of_problem()
    _, (x, y) = problem(torch.float64)
    value = train.cross_entropy(net, (x, y))
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(net.parameters()))])
    assert loss.value() == pytest.approx(value.item(), rel=1e-12)
    assert loss.gradient()[0] == pytest.approx(value.item(), rel=1e-12)
    torch.testing.assert_close(loss.gradient()[1], gradient)
    torch.testing.assert_close(loss.flat(train.snapshot(net)), loss.weights())


# memory


def test_the_projection_is_never_held_and_memory_stays_below_three_copies_of_the_weights():
    """By torch's own allocations: one vector for the moved weights, one for the gradient, a layer's gradient on its way."""
    net = nn.Sequential(*(nn.Linear(500, 500, bias=False) for _ in range(4)))
    loss = flat.Loss(net, train.cross_entropy, [(torch.randn(4, 500), torch.arange(4))])
    whole = 4 * 100 * loss.size
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        flat.sharpness(loss, eps=[1e-3], max_iterations=1)
    events = sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    peak = max(itertools.accumulate(event.nbytes() for event in events if event.name() == "[memory]"))
    blocks = 3 * 4 * 4096 * 100
    assert 2 * 4 * loss.size < peak < 3 * 4 * loss.size + blocks < whole / 10


@pytest.mark.slow
def test_sharpness_at_bert_bases_size_takes_less_than_four_copies_of_the_weights():
    """Resident memory of a process of its own; about seven minutes on one core."""
    pytest.importorskip("transformers", reason="BERT-base is transformers' here; the test above needs none")
    code = """
import pathlib, re, resource, torch, transformers
from trainflat import flat, train
torch.set_num_threads(1)
model = transformers.BertForSequenceClassification(transformers.BertConfig())
ids = torch.randint(1, 1000, (2, 16))
loss = flat.Loss(model, train.cross_entropy, [({"input_ids": ids}, torch.tensor([0, 1]))])
pathlib.Path("/proc/self/clear_refs").write_text("5")
status = lambda key: int(re.search(key + r":\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024
before = status("VmRSS")
flat.sharpness(loss, eps=[1e-3], max_iterations=1)
print((status("VmHWM") - before) / (4 * loss.size))
"""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks of resident memory are read as Linux tells them")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2 < float(done.stdout) < 4


# what cannot be


def test_weights_of_several_types_and_states_of_other_models_are_told():
    net, batch = problem()
    loss = flat.Loss(net, train.cross_entropy, [batch])
    with pytest.raises(ValueError, match=r"weight '0.weight' of shape \(16, 6\) here, and of shape \(3, 6\) there"):
        loss.flat(train.snapshot(nn.Sequential(nn.Linear(6, 3))))
    with pytest.raises(ValueError, match="weight '0.weight' .* none there"):
        loss.flat({})
    net[0].double()
    with pytest.raises(ValueError, match=r"'0.bias' is torch.float64 on cpu, .*deepcopy\(model\).float\(\)"):
        flat.Loss(net, train.cross_entropy, [batch])
    net[0].requires_grad_(False)
    flat.Loss(net, train.cross_entropy, [batch])


def test_a_model_that_has_diverged_is_told():
    net, loss = of_problem()
    net[0].weight.data[0, 0] = float("nan")
    for measure in MEASURES.values():
        with pytest.raises(NonFiniteLoss, match="over 32 examples is nan: the model has diverged"):
            measure(loss)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batches": []}, "no batches were given"),
        ({"mask": {"other": torch.ones(2, dtype=torch.bool)}}, "no such trainable parameter"),
        ({"mask": {"0.weight": torch.ones(2, dtype=torch.bool)}}, r"the shape \(16, 6\) there"),
    ],
)
def test_what_does_not_fit_the_model_is_told(change, said):
    net, batch = problem()
    with pytest.raises(ValueError, match=said):
        flat.Loss(net, train.cross_entropy, **{"batches": [batch], **change})


@pytest.mark.parametrize(
    ("options", "said"),
    [({"eps": []}, "sizes of the box"), ({"eps": [0.0]}, "above 0"), ({"max_iterations": 0}, "at least 1")],
)
def test_arguments_out_of_range_are_told(options, said):
    _, loss = of_problem()
    with pytest.raises(ValueError, match=said):
        flat.sharpness(loss, **options)
    with pytest.raises(ValueError, match="rho must be at least 0"):
        flat.ascent_sharpness(loss, rho=-1.0)


def test_a_batch_counts_by_its_examples_whatever_its_labels_are():
    torch.manual_seed(0)
    net, x = nn.Linear(4, 2), torch.randn(16, 4)

    def objective(model, batch):
        return (model(batch[0]) - torch.stack(batch[1], -1)).square().mean()

    whole = flat.Loss(net, objective, [(x, (x[:, 0], x[:, 1]))])
    parts = flat.Loss(net, objective, [(y, (y[:, 0], y[:, 1])) for y in (x[:15], x[15:])])
    assert abs(parts.value() - whole.value()) < 1e-6


def test_a_loss_for_each_example_is_refused():
    net, x = nn.Linear(4, 2), torch.randn(16, 4)
    with pytest.raises(ValueError, match=r"the mean loss of a batch, a 0-d tensor; this one has shape \(16, 2\)"):
        flat.Loss(net, lambda model, batch: model(batch[0]), [(x, x)]).value()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("measure", [flat.sharpness, flat.ascent_sharpness])
def test_weights_of_few_digits_are_not_moved_by_less_than_they_can_tell(measure, dtype):
    _, loss = of_problem(dtype=dtype)
    with pytest.raises(ValueError, match=r"in (bfloat16|float16) .* copy.deepcopy\(model\).float\(\)"):
        measure(loss)


@pytest.mark.parametrize("eps", ["0.1", 0.1, None, ["0.1"], [None]])
def test_sizes_of_the_box_of_another_kind_are_told(eps):
    _, loss = of_problem()
    with pytest.raises(TypeError, match=r"sizes of the box, a list of numbers above 0, such as \[0.001\]; got "):
        flat.sharpness(loss, eps=eps)


@pytest.mark.parametrize(
    "measure", [flat.sharpness, flat.ascent_sharpness, flat.spectrum, flat.top_eigenvalue, flat.trace]
)
def test_a_model_for_a_loss_is_told(measure):
    with pytest.raises(TypeError, match=r"flat.Loss\(model, objective, batches\) with held-out .*; got a Sequential"):
        measure(problem()[0])
