"""Eigenvalue and trace against the dense Hessian of small nets, and against another library where it is installed."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from trainflat import flat, train
from trainflat.compress import Mask
from trainflat.testing.problem import problem
from trainflat.train import NonFiniteLoss


class Form(nn.Module):
    """f(w) = w'Hw / 2 for any symmetric H."""

    def __init__(self, h: Tensor):
        super().__init__()
        self.h, self.w = h, nn.Parameter(torch.ones(len(h), dtype=h.dtype))

    def loss(self) -> flat.Loss:
        return flat.Loss(self, lambda model, batch: model.w @ model.h @ model.w / 2, [(None, torch.zeros(1))])


def symmetric(values: list[float]) -> Tensor:
    """A matrix with these eigenvalues in a random basis."""
    draw = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=draw, dtype=torch.float64))
    return q @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ q.T


@pytest.fixture(scope="module")
def net():
    """A net of 179 weights, its loss on two batches, and the Hessian of the whole set by torch."""
    model, (x, y) = problem(torch.float64)
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def f(vector: Tensor) -> Tensor:
        parts = vector.split([s.numel() for s in shapes])
        params = {name: part.view(s) for name, part, s in zip(names, parts, shapes, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(model, params, x), y)

    at = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    dense = torch.autograd.functional.hessian(f, at)
    return model, [(x[:20], y[:20]), (x[20:], y[20:])], dense


def test_a_product_equals_the_dense_hessians(net):
    model, batches, dense = net
    loss = flat.Loss(model, train.cross_entropy, batches)
    v = torch.randn(loss.size, dtype=torch.float64)
    torch.testing.assert_close(loss.hessian_times(v), dense @ v)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("normed", [parametrizations.weight_norm, nn.utils.weight_norm])
def test_a_product_of_a_weight_normed_model_equals_the_gradients_difference(normed):
    """torch's own second derivative of it is wrong on a CPU."""
    torch.manual_seed(0)
    model = nn.Sequential(normed(nn.Conv1d(2, 3, 3), dim=1), nn.Flatten(), nn.Tanh(), normed(nn.Linear(12, 3))).double()
    x, y, at = torch.randn(20, 2, 6, dtype=torch.float64), torch.randint(0, 3, (20,)), []
    loss = flat.Loss(model, train.cross_entropy, [(x, y)])
    v, step = torch.randn(loss.size, dtype=torch.float64), 1e-5
    for sign in (1, -1):
        with loss.at(loss.weights() + sign * step * v):
            at.append(loss.gradient()[1])
    torch.testing.assert_close(loss.hessian_times(v), (at[0] - at[1]) / (2 * step), rtol=1e-6, atol=1e-8)


def test_eigenvalue_and_trace_equal_those_of_the_dense_hessian(net):
    model, batches, dense = net
    loss = flat.Loss(model, train.cross_entropy, batches)
    value, residual, iterations = flat.top_eigenvalue(loss, tolerance=1e-5, max_iterations=100)
    assert value == pytest.approx(torch.linalg.eigvalsh(dense)[-1].item(), rel=1e-8)  # the error is residual squared
    assert residual <= 1e-5
    assert iterations < 60
    found = flat.trace(loss, probes=200)
    assert abs(found.value - dense.trace().item()) < 4 * found.error
    assert found.error < 0.1 * found.value


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_derivatives_are_found_wherever_they_are_asked_for(net, mode):
    model, batches, dense = net
    loss = flat.Loss(model, train.cross_entropy, batches)
    gradient, v = loss.gradient()[1], torch.randn(loss.size, dtype=torch.float64)
    with mode():
        again, product = loss.gradient()[1], loss.hessian_times(v)
    assert torch.equal(again, gradient)
    torch.testing.assert_close(product, dense @ v)


def test_a_compiled_model_has_the_second_derivatives_of_its_own(net):
    model, batches, dense = net
    loss = flat.Loss(torch.compile(model, backend="aot_eager"), train.cross_entropy, batches)
    loss.gradient()
    v = torch.randn(loss.size, dtype=torch.float64)
    torch.testing.assert_close(loss.hessian_times(v), dense @ v)


@pytest.mark.parametrize("ask", [flat.Loss.gradient, flat.top_eigenvalue, flat.ascent_sharpness])
def test_a_loss_that_does_not_depend_on_the_weights_is_told(net, ask):
    model, batches, _ = net
    loss = flat.Loss(model, lambda model, batch: train.cross_entropy(model, batch).detach(), batches)
    with pytest.raises(ValueError, match=r"does not depend on the weights .* detach\(\)"):
        ask(loss)


def test_with_a_mask_it_is_the_hessian_between_live_coordinates(net):
    model, batches, dense = net
    draw = torch.Generator().manual_seed(1)
    mask = Mask({n: torch.rand(p.shape, generator=draw) < 0.5 for n, p in model.named_parameters() if p.ndim == 2})
    loss = flat.Loss(model, train.cross_entropy, batches, mask=mask)
    within = dense[loss.alive][:, loss.alive]
    assert 0 < len(within) < len(dense)
    value, residual, _ = flat.top_eigenvalue(loss, tolerance=1e-5, max_iterations=100)
    assert value == pytest.approx(torch.linalg.eigvalsh(within)[-1].item(), rel=1e-8)
    assert residual <= 1e-5
    found = flat.trace(loss, probes=200)
    assert abs(found.value - within.trace().item()) < 4 * found.error


def test_the_residual_is_the_residual_even_where_it_was_stopped_early(net):
    """Lanczos from the same start by hand, and the residual of its vector by the dense matrix."""
    model, batches, dense = net
    loss = flat.Loss(model, train.cross_entropy, batches)
    start = torch.randn(loss.size, generator=torch.Generator().manual_seed(train.derive("lanczos", 0))).double()
    krylov = torch.stack([torch.linalg.matrix_power(dense, k) @ start for k in range(3)], dim=1)
    q, _ = torch.linalg.qr(krylov)
    _, vectors = torch.linalg.eigh(q.T @ dense @ q)
    v = q @ vectors[:, -1]
    expected = v @ dense @ v
    value, residual, iterations = flat.top_eigenvalue(loss, max_iterations=3, tolerance=1e-9)
    assert iterations == 3
    assert value == pytest.approx(expected.item(), rel=1e-6)
    assert residual == pytest.approx((dense @ v - expected * v).norm().item() / expected.item(), rel=1e-4)
    assert residual > 1e-9
    nearest = (torch.linalg.eigvalsh(dense) - value).abs().min().item()
    assert nearest <= residual * value


def test_the_spectrums_residuals_hold_in_single_precision_too(net):
    """Where Lanczos has converged beta |s_m| is nothing, and the values are still off by the rounding of the products."""
    model, batches, dense = net
    halves = [(x.float(), y) for x, y in batches]
    known = torch.linalg.eigvalsh(dense)
    found = flat.spectrum(flat.Loss(copy.deepcopy(model).float(), train.cross_entropy, halves), iterations=25)
    values, residuals, _ = torch.tensor(found, dtype=torch.float64)
    assert ((values[:, None] - known).abs().min(1).values <= residuals).all()
    assert residuals.min() < 1e-5 * values.max()


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["dense", "masked"])
def test_the_spectrums_values_lie_within_their_residuals_of_the_dense_hessians(net, share):
    """The largest exactly; of all some eigenvalue is as near as is said; weights are the moments of the start by hand."""
    model, batches, dense = net
    draw = torch.Generator().manual_seed(1)
    mask = Mask({n: torch.rand(p.shape, generator=draw) < share for n, p in model.named_parameters() if p.ndim == 2})
    loss = flat.Loss(model, train.cross_entropy, batches, mask=mask)
    h = dense[loss.alive][:, loss.alive] if share < 1 else dense
    known = torch.linalg.eigvalsh(h)
    values, residuals, weights = torch.tensor(flat.spectrum(loss, iterations=25), dtype=torch.float64)
    assert len(values) == 25
    assert (values.diff() > 0).all()
    distance = (values[:, None] - known).abs().min(1).values
    assert (distance <= residuals).all()
    assert (residuals > 1e-6).any()  # not all have converged
    assert values[-1].item() == pytest.approx(known[-1].item(), rel=1e-6)
    assert values[0].item() >= known[0].item() - 1e-9
    start = torch.randn(loss.size, generator=torch.Generator().manual_seed(train.derive("lanczos", 0))).double()
    q = nn.functional.normalize(start[loss.alive] if share < 1 else start, dim=0)
    for power in range(4):  # Gauss's quadrature has the first 2 m - 1 moments q' H^p q exactly
        moment = q @ torch.linalg.matrix_power(h, power) @ q
        assert (weights @ values**power).item() == pytest.approx(moment.item(), rel=1e-5)


def test_with_as_many_iterations_as_weights_the_spectrum_is_whole():
    known = [-3.0, -1.0, 0.5, 2.0, 7.0]
    values, residuals, weights = flat.spectrum(Form(symmetric(known)).loss(), iterations=50)
    assert values == pytest.approx(known, abs=1e-9)
    assert max(residuals) < 1e-9
    assert sum(weights) == pytest.approx(1)
    twice = flat.spectrum(Form(symmetric([2.0, 2.0, 2.0, 5.0])).loss())  # of equal ones a start sees one
    assert twice.values == pytest.approx([2.0, 5.0])
    assert flat.spectrum(Form(torch.zeros(3, 3)).loss()) == ((0.0,), (0.0,), (1.0,))


@pytest.mark.parametrize(
    "values",
    [[3.0, 2.999, 1.0, 0.0, -7.0], [5.0] * 4, [-1.0, -2.0, -3.0], [1e-6, 1e-7, 0.0], [1e6, 1.0]],
)
def test_it_is_the_largest_eigenvalue_not_the_largest_in_size(values):
    value, residual, iterations = flat.top_eigenvalue(Form(symmetric(values)).loss(), tolerance=1e-9)
    assert value == pytest.approx(max(values), rel=1e-8)
    assert residual < 1e-7
    assert iterations <= len(values)


def test_a_loss_without_curvature_has_none():
    loss = Form(torch.zeros(3, 3)).loss()
    assert flat.top_eigenvalue(loss) == (0.0, 0.0, 1)
    assert flat.trace(loss, probes=2) == (0.0, 0.0, 2)
    net = nn.Linear(2, 1, bias=False)  # a linear loss: its gradient has no graph
    line = flat.Loss(net, lambda model, batch: model(batch[0]).mean(), [(torch.ones(1, 2), torch.zeros(1))])
    assert (line.hessian_times(torch.ones(2)) == 0).all()


def test_the_traces_error_is_its_spread_over_seeds():
    loss = Form(symmetric([4.0, 3.0, 2.0, 1.0, 0.5, -1.0])).loss()
    found = [flat.trace(loss, probes=10, seed=seed) for seed in range(80)]
    values = torch.tensor([one.value for one in found])
    spread, told = values.std().item(), math.sqrt(sum(one.error**2 for one in found) / len(found))
    assert values.mean().item() == pytest.approx(9.5, abs=4 * spread / math.sqrt(80))
    assert told == pytest.approx(spread, rel=4 / math.sqrt(2 * 79))  # relative s.d. of a sample s.d.


def test_the_trace_of_a_diagonal_hessian_is_exact():
    assert flat.trace(Form(torch.diag(torch.tensor([1.0, 2.0, 3.5]))).loss(), probes=2) == (6.5, 0.0, 2)


def test_a_default_bert_has_second_derivatives_on_a_cpu():
    """Fused attention has none there; without the plain kernels torch raises. Checked against finite differences."""
    transformers = pytest.importorskip("transformers", reason="the essential tests above need no transformers")
    thin = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **thin)
    model = transformers.BertForSequenceClassification(config).double()
    assert model.config._attn_implementation == "sdpa"
    # without token 0, the padding: torch's embeddings give it no gradient, whatever the loss says
    ids = torch.randint(1, 50, (6, 8))
    batch = ({"input_ids": ids, "attention_mask": (torch.arange(8) < 5 + ids[:, :1] % 4).long()}, ids[:, 0] % 2)
    loss, params = flat.Loss(model, train.cross_entropy, [batch]), list(model.parameters())
    first = torch.autograd.grad(train.cross_entropy(model.eval(), batch), params, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(sum((g**2).sum() for g in first), params)
    v = nn.functional.normalize(torch.randn(loss.size, dtype=torch.float64), dim=0)
    w, h, sides = loss.weights(), 1e-5, []
    for sign in (1, -1):
        with loss.at(w + sign * h * v):
            sides.append(loss.gradient()[1])
    differences = (sides[0] - sides[1]) / (2 * h)
    error = torch.linalg.vector_norm(loss.hessian_times(v) - differences) / torch.linalg.vector_norm(differences)
    assert error < 1e-7  # h^2 from cutting off, 1e-16 / h from rounding


def test_another_library_finds_the_same():
    # an oracle only: the dense Hessian above is the essential one, and this library is still in alpha
    theirs = pytest.importorskip("hessian_eigenthings", reason="pip install --pre --no-deps hessian-eigenthings")
    from hessian_eigenthings.algorithms import lanczos

    model, (x, y) = problem(torch.float64)
    loss = flat.Loss(model, train.cross_entropy, [(x, y)])
    operator = theirs.HessianOperator(model, [(x, y)], lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]))
    found = lanczos(operator, k=1, max_iter=60, tol=1e-8)
    ours = flat.top_eigenvalue(loss, tolerance=1e-6, max_iterations=60)
    assert ours.value == pytest.approx(float(found.eigenvalues[0]), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "said"), [({"tolerance": 0.0}, "tolerance must be above 0"), ({"max_iterations": 0}, "at least 1")]
)
def test_arguments_out_of_range_are_told(options, said):
    loss = Form(torch.eye(2)).loss()
    with pytest.raises(ValueError, match=said):
        flat.top_eigenvalue(loss, **options)
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        flat.spectrum(loss, iterations=0)
    with pytest.raises(ValueError, match="at least 2, or the estimate has no error"):
        flat.trace(loss, probes=1)


def test_a_half_product_is_told_instead_of_all_there_are():
    loss = Form(torch.eye(2)).loss()
    for measure, name in (
        (flat.top_eigenvalue, "max_iterations"),
        (flat.spectrum, "iterations"),
        (flat.trace, "probes"),
    ):
        with pytest.raises(TypeError, match=f"{name} counts products with the Hessian and is a whole number, got 2.5"):
            measure(loss, **{name: 2.5})


def test_a_loss_that_is_not_finite_is_told():
    with pytest.raises(NonFiniteLoss, match="the model has diverged"):
        Form(torch.full((2, 2), float("inf"))).loss().hessian_times(torch.ones(2))
