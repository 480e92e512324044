"""Distillation: what is learnt from a teacher's predictions and layers, and which layer learns from which."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainflat import train
from trainflat.compress import Dialect, Gates, Lagrangian, distill, gated, shrink, structure
from trainflat.compress.distill import prediction_loss
from trainflat.compress.matching import RULES, Exists, dynamic, fixed, monotone, spread, v3, v4
from trainflat.tasks import zoo

HIDDEN = 8


def encoder(layers=3, hidden=HIDDEN, heads=2, seed=0):
    torch.manual_seed(seed)
    embeddings = zoo.Words(20, 10, hidden, 0.0)
    model = zoo.Encoder(embeddings, classes=3, hidden=hidden, heads=heads, layers=layers, ffn=6, dropout=0.0)
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model


BATCH = (torch.arange(4 * 5).reshape(4, 5), torch.tensor([0, 1, 2, 1]))


def states_of(model):
    """The output of every layer, written out."""
    hidden, found = model.embeddings(BATCH[0]), []
    for layer in model.layers:
        hidden = layer(hidden)
        found.append(hidden)
    return found


# predictions


def test_the_prediction_loss_is_the_definition():
    student, teacher, t = torch.randn(5, 3), torch.randn(5, 3), 2.0
    p, q = ((z / t).softmax(-1) for z in (teacher, student))
    definition = t**2 * (p * (p.log() - q.log())).sum(-1).mean()
    assert torch.allclose(prediction_loss(student, teacher, temperature=t), definition, atol=1e-6)
    reference = nn.functional.kl_div((student / t).log_softmax(-1), p, reduction="batchmean") * t**2
    assert torch.allclose(prediction_loss(student, teacher, temperature=t), reference, atol=1e-6)


def test_at_a_high_temperature_it_is_half_the_squared_difference_of_centred_logits():
    """Hinton et al. 2015, section 2.1: T^2 KL tends to |centred difference|^2 / (2 classes)."""
    student, teacher = torch.randn(1, 4).double(), torch.randn(1, 4).double()
    difference = student - teacher
    limit = (difference - difference.mean()).square().sum() / (2 * 4)
    assert math.isclose(float(prediction_loss(student, teacher, temperature=1e4)), float(limit), rel_tol=1e-3)


def test_spans_compete_over_positions_and_start_and_end_are_averaged():
    student, teacher = torch.randn(2, 6, 2), torch.randn(2, 6, 2)
    both = [prediction_loss(student[..., side], teacher[..., side]) for side in (0, 1)]
    assert torch.allclose(prediction_loss(student, teacher, dim=1), sum(both) / 2)


def test_a_single_output_is_regressed_on_since_its_softmax_says_nothing():
    assert prediction_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [5.0]])) == 4.5


def test_the_gradient_equals_finite_differences():
    student, teacher = (
        torch.randn(3, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(3, 4, dtype=torch.float64),
    )
    assert torch.autograd.gradcheck(lambda z: prediction_loss(z, teacher), student, eps=1e-6, atol=1e-8)


# matching


TABLE = st.integers(1, 4).flatmap(
    lambda t: st.integers(1, 6).flatmap(
        lambda s: st.tuples(
            st.lists(st.lists(st.floats(0, 9), min_size=s, max_size=s), min_size=t, max_size=t),
            st.lists(st.booleans(), min_size=s, max_size=s),
        )
    )
)


def total(distances, assignment):
    return sum(row[layer] for row, layer in zip(distances, assignment, strict=True))


@given(TABLE)
def test_dynamic_is_the_best_of_all_assignments_to_layers_with_an_ffn(table):
    distances, ffn = table
    found = dynamic(distances, Exists([False] * len(ffn), ffn))
    open_ = [i for i, lives in enumerate(ffn) if lives]
    if not open_:
        assert found == [None] * len(distances)
        return
    best = min(total(distances, choice) for choice in itertools.product(open_, repeat=len(distances)))
    assert total(distances, found) == pytest.approx(best)
    assert set(found) <= set(open_)


@given(TABLE)
def test_monotone_is_the_best_of_all_assignments_in_order(table):
    distances, ffn = table
    found = monotone(distances, Exists([False] * len(ffn), ffn))
    open_ = [i for i, lives in enumerate(ffn) if lives]
    if not open_:
        assert found == [None] * len(distances)
        return
    strict = len(open_) >= len(distances)
    ordered = [
        choice
        for choice in itertools.product(open_, repeat=len(distances))
        if all(a < b or (a == b and not strict) for a, b in itertools.pairwise(choice))
    ]
    assert tuple(found) in ordered
    assert total(distances, found) == pytest.approx(min(total(distances, choice) for choice in ordered))


@given(TABLE)
def test_v4_is_the_references_loop_with_its_flags_put_in_order(table):
    distances, attention = table
    layerwise, existing = torch.tensor(distances, dtype=torch.float64), torch.tensor(attention)
    last, theirs = len(attention), []
    for search in range(len(distances) - 1, -1, -1):  # trainer.py, lines 613-628, written for 12 layers
        indexes = torch.sort(layerwise[search], stable=True)[1]
        align = indexes[(indexes < last) & existing[indexes]]  # there "& existing": flags by layer, indexes by distance
        last = int(align[0]) if len(align) else last
        theirs.append(last)
    found = v4(distances, Exists(attention, [False] * len(attention)))
    assert found == [layer if layer < len(attention) else None for layer in theirs[::-1]]


@given(TABLE)
def test_v3_is_the_nearest_layer_whether_it_exists_or_not(table):
    distances, flags = table
    nearest = torch.tensor(distances).argmin(dim=1).tolist()
    chosen = v3(distances, Exists(flags, flags))
    assert total(distances, chosen) == pytest.approx(total(distances, nearest))


def test_matching_needs_the_ffn_not_attention_issue_53():
    distances = [[0.0, 1.0, 2.0]]
    exists = Exists(attention=[True, False, True], ffn=[False, True, True])
    assert dynamic(distances, exists) == monotone(distances, exists) == [1]
    assert v4(distances, exists) == [0], "the reference's version 4 asks for the attention"


@pytest.mark.parametrize("rule", RULES)
def test_no_eligible_layer_left_issue_27(rule):
    """There the match falls out of the table: an error on the GPU in the middle of training."""
    distances = [[3.0, 1.0], [2.0, 5.0], [1.0, 1.0]]
    nothing = RULES[rule](distances, Exists([False, False], [False, False]))
    assert nothing == ([1, 0, 0] if rule == "v3" else [None] * 3)
    single = RULES[rule](distances, Exists([True, False], [True, False]))
    assert single == ([1, 0, 0] if rule == "v3" else [0, 0, 0])


def test_layers_are_spread_as_the_reference_has_them_and_fixed_keeps_the_share():
    assert spread(12) == (2, 5, 8, 11)
    assert fixed((2, 5, 8, 11), 12, 12) == [2, 5, 8, 11]
    assert fixed((2, 5, 8, 11), 12, 6) == [1, 2, 4, 5]
    for layers in range(1, 30):
        assert spread(layers)[-1] == layers - 1
        assert len(set(spread(layers))) == min(4, layers)


# the objective


def test_the_loss_is_the_sum_of_its_parts():
    teacher, student = encoder(seed=1).eval(), encoder(seed=2)
    both = distill(train.cross_entropy, teacher, student, predictions=0.3, states=0.7, labels=0.2, matching="fixed")
    with torch.no_grad():
        mse = sum(nn.functional.mse_loss(own, theirs) for own, theirs in zip(states_of(student), states_of(teacher)))
        expected = (
            0.2 * train.cross_entropy(student, BATCH)
            + 0.3 * prediction_loss(student(BATCH[0]), teacher(BATCH[0]))
            + 0.7 * mse
        )
    assert torch.allclose(both(student, BATCH), expected)
    assert both.matched == [0, 1, 2]


@pytest.mark.parametrize("matching", ["fixed", *RULES])
def test_without_gates_it_distils_into_a_smaller_student(matching):
    """Fewer layers, narrower: the projection starts as the identity on the dimensions that both have."""
    teacher, student = encoder(layers=4, seed=1).eval(), encoder(layers=2, hidden=6, seed=2)
    loss = distill(train.cross_entropy, teacher, student, matching=matching)
    assert torch.equal(loss.projection.weight, torch.eye(HIDDEN, 6))
    weights = [*student.parameters(), *loss.parameters()]
    steps = train.fit(student, loss, [BATCH] * 30, torch.optim.Adam(weights, lr=0.01), steps=30)
    assert steps[-1].loss < 0.7 * steps[0].loss
    assert not torch.equal(loss.projection.weight, torch.eye(HIDDEN, 6))
    assert all(layer in (0, 1) for layer in loss.matched)


def test_the_teacher_is_never_trained_saved_or_left_in_training_mode():
    teacher, student = encoder(seed=1), encoder(seed=2)
    loss = distill(train.cross_entropy, teacher, student)
    assert not teacher.training
    assert list(loss.state_dict()) == ["projection.weight", "projection.bias"]
    teacher.train()
    loss(student, BATCH).backward()
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    assert all(not inner._forward_hooks for net in (teacher, student) for inner in net.modules())


def test_distilling_draws_nothing_from_the_random_stream():
    teacher, student = encoder(seed=1), encoder(seed=2)
    teacher.dropout.p = 0.5
    state = torch.get_rng_state()
    distill(train.cross_entropy, teacher, student, labels=1.0)(student.eval(), BATCH)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("matching", ["dynamic", "monotone"])
def test_under_gates_only_layers_with_an_ffn_are_matched(matching):
    teacher, student = encoder(seed=1).eval(), encoder(seed=2)
    gates = Gates(structure(student))
    with torch.no_grad():
        for alpha in gates.log_alpha.values():
            alpha.fill_(30.0)
        gates.log_alpha["ffn"][:2] = -30.0
        gates.log_alpha["attention"][2] = -30.0
    loss = distill(train.cross_entropy, teacher, student, matching=matching, gates=gates)
    with gates.on(student.train()):
        loss(student, BATCH).backward()
    assert loss.matched == [2, 2, 2]
    with torch.no_grad():
        gates.log_alpha["intermediate"][2] = -30.0  # no neuron, so no FFN whatever its own gate says
    with gates.on(student.train()):
        value = loss(student, BATCH)
    assert loss.matched == [None, None, None]
    assert value.isfinite()


def test_a_shrunk_student_goes_on_where_the_gated_one_stopped():
    teacher, student = encoder(seed=1).eval(), encoder(seed=2).eval()
    found = structure(student)
    z = {name: torch.rand(shape) for name, shape in found.shapes.items()}
    z["hidden"][[0, 5]], z["ffn"][1], z["intermediate"][0, :4] = 0, 0, 0
    gates = Gates(found)
    before = distill(train.cross_entropy, teacher, student, gates=gates, matching="dynamic")
    nn.init.normal_(before.projection.weight)
    gates.alive = torch.tensor([True] * 3), torch.tensor([True, False, True])
    with gated(student, found, lambda: z):
        expected = before(student, BATCH)
    small = shrink(student, found, z)
    after = distill(train.cross_entropy, teacher, small, matching="dynamic")
    after.continue_from(before, z["hidden"])
    assert torch.allclose(after(small, BATCH), expected, atol=1e-5)
    assert after.matched == before.matched
    assert 1 not in after.matched, "its FFN was cut"


def test_it_goes_into_a_lagrangian_and_every_part_learns():
    teacher, student = encoder(seed=1).eval(), encoder(seed=2)
    gates = Gates(structure(student))
    held = Lagrangian(distill(train.cross_entropy, teacher, student, gates=gates), gates, target=0.5)
    assert sorted(held.state_dict()) == sorted(
        ["multipliers", "objective.projection.weight", "objective.projection.bias"]
        + [f"gates.log_alpha.{family}" for family in gates.log_alpha]
    )
    groups = [{"params": [*student.parameters(), *held.objective.parameters()], "lr": 1e-3}, *held.groups()]
    start = {name: tensor.clone() for name, tensor in held.state_dict().items()}
    with gates.on(student):
        steps = train.fit(student, held, [BATCH] * 3, torch.optim.AdamW(groups), steps=3)
    assert len(steps) == 3
    assert all(not torch.equal(tensor, start[name]) for name, tensor in held.state_dict().items())


def test_bert_distils_into_bert_from_its_layers_outputs():
    transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
    shape = {"vocab_size": 30, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12}
    make = transformers.BertForSequenceClassification
    teacher = make(transformers.BertConfig(**shape, num_hidden_layers=4)).eval()
    student = make(transformers.BertConfig(**shape, num_hidden_layers=4)).eval()
    batch = ({"input_ids": torch.arange(10).reshape(2, 5)}, torch.tensor([0, 1]))
    loss = distill(train.cross_entropy, teacher, student, predictions=0, states=1.0, matching="fixed")
    own, theirs = (net(**batch[0], output_hidden_states=True).hidden_states[1:] for net in (student, teacher))
    expected = sum(nn.functional.mse_loss(a, b) for a, b in zip(own, theirs))
    assert torch.allclose(loss(student, batch), expected)


# mistakes


def test_wrong_settings_are_one_sentence():
    teacher, student = encoder(), encoder()
    for change, message in (
        ({"matching": "closest"}, r"matching must be one of fixed, dynamic, monotone, v3, v4; got 'closest'"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"states": -1.0}, "weights must be at least 0"),
        ({"states": 0.0, "predictions": 0.0}, "not all 0"),
        ({"teacher_layers": [0, 3]}, r"teacher_layers must rise within 0 to 2, got \[0, 3\]"),
        ({"teacher_layers": [1, 1]}, r"teacher_layers must rise"),
        ({"teacher_layers": []}, r"teacher_layers must rise"),
    ):
        with pytest.raises(ValueError, match=message):
            distill(train.cross_entropy, teacher, student, **change)
    strange = Dialect("blocks", "q", "k", "v", "o", "n", "up", "down", "n", ("h",), {}, {})
    with pytest.raises(LookupError, match="has no encoder layers"):
        distill(train.cross_entropy, teacher, student, dialect=strange)
