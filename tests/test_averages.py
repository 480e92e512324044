"""Averages of iterates against closed forms, and the laws over all of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from trainflat import flat, testing, train
from trainflat.compress import Mask
from trainflat.flat import averages
from trainflat.testing.problem import problem


@pytest.mark.parametrize(
    "average",
    [
        *(getattr(averages, name) for name in averages.__all__),
        partial(flat.swa, checkpoints=3, share=1),
        partial(flat.ema, 0.5),
    ],
)
def test_every_average_keeps_the_laws(average):
    testing.check_average(average)


def seen(average, values: list[float]) -> float:
    """What an average keeps of a weight that takes these values in turn."""
    model = nn.Linear(1, 1, bias=False)
    for i, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        average(dict(model.named_parameters()), (i + 1) / len(values))
    average.apply_to(model)
    return model.weight.item()


@pytest.mark.parametrize(
    ("epochs", "checkpoints", "averaged"), [(10, 10, [6, 7, 8, 9, 10]), (3, 6, [2, 2.5, 3])], ids=["small", "large"]
)
@pytest.mark.parametrize("steps_per_epoch", [2, 78, 116, 230, 3682])
def test_swa_averages_the_checkpoints_that_the_paper_averages(epochs, checkpoints, averaged, steps_per_epoch):
    steps = epochs * steps_per_epoch
    kept = seen(flat.swa(checkpoints=checkpoints), [(i + 1) / steps_per_epoch for i in range(steps)])
    assert kept == pytest.approx(np.mean(averaged), rel=1e-6)


def test_swa_of_fewer_steps_than_checkpoints_takes_each_step_once():
    assert seen(flat.swa(checkpoints=10), [1.0, 5.0, 3.0]) == 4.0  # after steps 2 and 3: at 6.7 and 10 of ten


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_ema_is_the_weighted_sum_written_out(decay):
    values = [3.0, -1.0, 4.0, 1.0, -5.0]
    weights = [decay**4, *((1 - decay) * decay ** (4 - i) for i in range(1, 5))]
    assert sum(weights) == pytest.approx(1)
    assert seen(flat.ema(decay), values) == pytest.approx(np.dot(weights, values), rel=1e-6)


def test_wasam_is_the_mean_of_sams_iterates():
    net, batch = problem()
    iterates, average = [], flat.swa(checkpoints=10)
    only = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in train.loop(net, train.cross_entropy, [batch] * 10, only, steps=10, gradient=flat.sam(0.3)):
        average(dict(net.named_parameters()), (step.index + 1) / 10)
        iterates.append(train.snapshot(net))
    average.apply_to(net)
    for name, kept in train.snapshot(net).items():
        torch.testing.assert_close(kept, torch.stack([one[name] for one in iterates[5:]]).mean(0))


@pytest.mark.parametrize("make", [flat.ema, flat.swa], ids=["ema", "swa"])
def test_a_state_that_was_read_on_the_cpu_goes_on_elsewhere_and_is_the_averages_own(make):
    first, again = make(), make()
    w = {"w": nn.Parameter(torch.ones(3))}
    for t in (0.6, 0.7):
        first(w, t)
    state = first.state_dict()
    again.load_state_dict(state)
    w["w"].data += 1
    again(w, 0.8)
    assert torch.equal(state["mean"]["w"], torch.ones(3))  # neither the state nor the first average moved with it
    again.load_state_dict(state)
    again({"w": nn.Parameter(torch.ones(3, device="meta"))}, 0.8)
    assert again.mean["w"].device.type == "meta"


def test_an_average_of_bfloat16_weights_is_taken_in_float32():
    model, average = nn.Linear(1, 1, bias=False).to(torch.bfloat16), flat.swa(checkpoints=300, share=1)
    for i in range(300):
        nn.init.constant_(model.weight, 1.0 if i % 2 else 1.0078125)  # neighbours in bfloat16
        average(dict(model.named_parameters()), (i + 1) / 300)
    assert average.mean["weight"].item() == pytest.approx(1.00390625, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(flat.swa, checkpoints=0), "checkpoints counts"),
        (partial(flat.swa, share=0.0), "must be in (0, 1]"),
        (partial(flat.ema, 1.0), "decay must be in"),
    ],
)
def test_a_value_that_cannot_be_is_told(make, said):
    with pytest.raises(ValueError) as error:
        make()
    assert said in str(error.value)


def test_half_a_checkpoint_is_told():
    with pytest.raises(TypeError, match="checkpoints counts those of a whole run and is a whole number, got 2.5"):
        flat.swa(checkpoints=2.5)


def test_an_average_of_nothing_is_not_applied():
    model, average = nn.Linear(4, 1), flat.swa()
    average(dict(model.named_parameters()), 0.5)  # before its first checkpoint
    with pytest.raises(
        ValueError, match="nothing to put .* swa of checkpoints 6 to 10, with 0 of them so far; show it"
    ):
        average.apply_to(model)
    with pytest.raises(ValueError, match="nothing to put into the model yet: ema"):
        flat.ema().apply_to(model)


def test_an_average_of_other_parameters_is_not_applied():
    one, other, average = nn.Linear(4, 1), nn.Linear(4, 3), flat.ema()
    average(dict(one.named_parameters()), 1.0)
    with pytest.raises(ValueError, match=r"weight has shape \(3, 4\) in the model, \(1, 4\) in the average"):
        average.apply_to(other)
    with pytest.raises(
        ValueError, match="of other parameters, such as 'weight': show it the names.*such as '0.weight'"
    ):
        average.apply_to(nn.Sequential(one))


@pytest.mark.parametrize(
    ("saved", "made", "said"),
    [
        (
            flat.swa,
            flat.ema,
            r"it holds mean, count, reached, and here it has to be mean, count; make the average as it",
        ),
        (flat.ema, flat.swa, r"it holds mean, count, and here it has to be mean, count, reached"),
        (flat.ema, flat.last, r"it holds mean, count, and here it has to be nothing"),
    ],
)
def test_the_state_of_another_average_is_refused(saved, made, said):
    with pytest.raises(ValueError, match=said):
        made().load_state_dict(saved().state_dict())


@pytest.mark.parametrize("t", [0.0, 1.1, 100, -1, float("nan")])
def test_swa_is_told_progress_and_not_a_count_of_steps(t):
    with pytest.raises(ValueError, match=r"the progress after a step, \(step.index \+ 1\) / steps, in \(0, 1\]; got"):
        flat.swa()({"w": nn.Parameter(torch.ones(1))}, t)


@pytest.mark.parametrize("make", [flat.swa, flat.ema])
def test_what_has_no_names_cannot_be_averaged(make):
    model = nn.Linear(2, 1)
    for given in (model, list(model.parameters())):
        with pytest.raises(TypeError, match=r"by name, dict\(model.named_parameters\(\)\); this is a (Linear|list)"):
            make()(given, 1.0)


@pytest.mark.parametrize("make", [flat.swa, flat.ema])
def test_parameters_that_come_on_the_way_or_change_their_shape_are_told(make):
    average, w = make(), nn.Parameter(torch.ones(2))
    average({"w": w}, 0.9)
    for given in ({"w": w, "late": w}, {"w": nn.Parameter(torch.ones(3))}):
        with pytest.raises(ValueError, match="(late|w) .* the same parameters in every step"):
            average(given, 1.0)


@pytest.mark.parametrize("make", [flat.swa, flat.ema])
def test_parameters_that_are_missing_on_the_way_are_told(make):
    average, w, frozen = make(), nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    average({"w": w, "frozen": frozen}, 0.9)
    with pytest.raises(ValueError, match="frozen is missing .* the same parameters in every step"):
        average({"w": w}, 1.0)


@pytest.mark.parametrize("make", [partial(flat.swa, checkpoints=2, share=1.0), flat.ema])
def test_an_average_that_began_before_a_mask_is_put_into_what_lives(make):
    model, average = nn.Linear(4, 1), make()
    params = dict(model.named_parameters())
    average(params, 0.5)
    mask = Mask({"weight": torch.tensor([[True, False, True, False]])})
    with mask.on(model):
        average(params, 1.0)
        average.apply_to(model)
        assert model.weight[~mask["weight"]].tolist() == [0.0, 0.0]
        assert torch.equal(model.weight[mask["weight"]], average.mean["weight"][mask["weight"]])
