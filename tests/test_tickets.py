from __future__ import annotations

import random
from itertools import repeat

import pytest
import torch
from torch import nn

from trainflat import train
from trainflat.compress import Mask, Ticket, load_mask, magnitude, prune, save_mask
from trainflat.compress.tickets import fingerprint
from trainflat.testing.problem import equal, problem


def body_and_head(classes=3, seed=0):
    torch.manual_seed(seed)
    net = nn.Module()
    net.body = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16))
    net.head = nn.Linear(16, classes)
    net.forward = lambda x: net.head(net.body(x).relu())
    return net


def drawn(net, sparsity=0.5):
    """A ticket from the weights that the net has now."""
    dense = Mask.dense(net, where=lambda name, p: p.ndim == 2 and not name.startswith("head"))
    return Ticket(prune(magnitude(net), sparsity, within=dense), start=train.snapshot(net))


def trained(net):
    train.fit(net, train.cross_entropy, repeat(problem()[1]), torch.optim.Adam(net.parameters(), lr=0.01), steps=3)
    return net


def odd_mask():
    """Sizes that fill no whole byte, and one tensor without dimensions."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (3, 5), "b": (8,), "c": (1,), "d": (2, 3, 7), "e": ()}
    return Mask({name: torch.rand(shape, generator=generator) < 0.5 for name, shape in shapes.items()})


# rewinding


def test_rewinding_puts_the_start_back_and_zeroes_what_is_pruned():
    net = body_and_head()
    ticket = drawn(net)
    trained(net)
    ticket.rewind(net)
    for name, tensor in net.state_dict().items():
        alive = ticket.mask[name] if name in ticket.mask else torch.ones_like(tensor, dtype=torch.bool)
        assert torch.equal(tensor, torch.where(alive, ticket.start[name], 0.0))


@pytest.mark.parametrize("keep", [("head.",), ["head"], "head", iter(["head.weight", "head.bias"])])
def test_rewinding_can_keep_the_head(keep):
    net = body_and_head()
    ticket = drawn(net)
    now = train.snapshot(trained(net))
    ticket.rewind(net, keep=keep)
    kept = {name for name, tensor in net.state_dict().items() if torch.equal(tensor, now[name])}
    assert kept == {"head.weight", "head.bias"}
    assert torch.equal(net.body[1].weight, ticket.start["body.1.weight"])


def test_rewinding_another_model_is_refused_and_changes_nothing():
    ticket, other = drawn(body_and_head()), body_and_head(classes=5)
    before = train.snapshot(other)
    with pytest.raises(ValueError, match=r"head\.weight has shape \(5, 16\) in the model, \(3, 16\) in the state"):
        ticket.rewind(other)
    assert equal(before, train.snapshot(other))


# transplanting


@pytest.mark.parametrize("head", [("head.",), "head"])
def test_a_ticket_goes_into_a_model_with_another_head(head):
    ticket, other = drawn(body_and_head()), body_and_head(classes=5, seed=1)
    before = train.snapshot(other)
    ticket.transplant(other, head=head)
    assert torch.equal(other.head.weight, before["head.weight"])
    assert torch.equal(
        other.body[0].weight, torch.where(ticket.mask["body.0.weight"], ticket.start["body.0.weight"], 0.0)
    )
    assert torch.equal(other.body[1].bias, ticket.start["body.1.bias"])


def test_a_head_of_another_name_is_left_as_well():
    ticket, other = drawn(body_and_head()), body_and_head(seed=1)
    other.classifier, other.head = other.head, None
    before = other.classifier.weight.detach().clone()
    ticket.transplant(other, head=("head.", "classifier."))
    assert torch.equal(other.classifier.weight, before)


def test_a_ticket_does_not_go_into_another_body():
    ticket, other = drawn(body_and_head()), body_and_head(classes=5)
    before = train.snapshot(other)
    with pytest.raises(ValueError, match=r"head\.weight has shape"):
        ticket.transplant(other)  # no head was named
    assert equal(before, train.snapshot(other))


@pytest.mark.parametrize("names", ["haed", ["head.", "haed."], ["*.weight"]])
def test_a_name_that_is_in_neither_model_nor_start_is_refused_and_changes_nothing(names):
    net = body_and_head()
    ticket, before = drawn(net), train.snapshot(trained(net))
    wrong = "haed" if "haed" in "".join(names) else r"\*\.weight"
    for put in (lambda: ticket.rewind(net, keep=names), lambda: ticket.transplant(net, head=names)):
        with pytest.raises(ValueError, match=f"no weight's name begins with '{wrong}"):
            put()
        assert equal(before, train.snapshot(net))


# on disk


def test_a_mask_comes_back_to_the_bit(tmp_path):
    mask = odd_mask()
    save_mask(tmp_path / "mask", mask)
    again = load_mask(tmp_path / "mask")
    assert again == mask
    assert list(again) == list(mask)
    assert all(again[name].shape == mask[name].shape for name in mask)


def test_a_mask_of_transposed_tensors_comes_back(tmp_path):
    mask = Mask({"w": (torch.rand(5, 3) < 0.5).t()})
    save_mask(tmp_path / "mask", mask)
    assert load_mask(tmp_path / "mask") == mask


def test_a_saved_ticket_takes_one_bit_a_weight(tmp_path):
    mask = Mask({f"layer.{i}.weight": torch.rand(256, 256) < 0.5 for i in range(8)})
    Ticket(mask, {"w": torch.ones(1000, 1000)}).save(tmp_path / "ticket")
    assert mask.size / 8 <= (tmp_path / "ticket").stat().st_size <= mask.size / 8 + 200 * len(mask)


@pytest.mark.parametrize("weights", [True, False])
def test_a_ticket_comes_back_with_its_start(tmp_path, weights):
    net = body_and_head()
    ticket = drawn(net)
    ticket.save(tmp_path / "ticket", weights=weights)
    again = Ticket.load(tmp_path / "ticket", start=None if weights else train.snapshot(net))
    assert again.mask == ticket.mask == load_mask(tmp_path / "ticket")
    assert equal(dict(again.start), dict(ticket.start))


def test_a_ticket_is_not_given_weights_that_it_was_not_drawn_from(tmp_path):
    net = body_and_head()
    drawn(net).save(tmp_path / "ticket")
    with pytest.raises(
        ValueError, match=r"was drawn from other weights: its start is [0-9a-f]{12}, given [0-9a-f]{12}"
    ):
        Ticket.load(tmp_path / "ticket", start=train.snapshot(trained(net)))
    with pytest.raises(ValueError, match="holds no weights, only their fingerprint: give the start"):
        Ticket.load(tmp_path / "ticket")


def test_the_fingerprint_tells_apart_every_bit_name_shape_and_type():
    start = {"a": torch.arange(4.0), "b": torch.ones(2, 2).to(torch.bfloat16)}
    same = {"b": torch.ones(2, 2).to(torch.bfloat16), "a": torch.arange(4.0)}
    others = [
        {**start, "a": start["a"].nextafter(torch.tensor(9.0))},
        {**start, "a": start["a"].reshape(2, 2)},
        {**start, "a": start["a"].view(torch.int32)},
        {"c": start["a"], "b": start["b"]},
        {"a": start["a"]},
        {**start, "a": torch.tensor([-0.0, 1.0, 2.0, 3.0])},
    ]
    assert fingerprint(same) == fingerprint(start)
    assert len({fingerprint(start), *map(fingerprint, others)}) == 7


def damage(path, how):
    whole = path.read_bytes()
    if how == "weights":
        train.save_weights(path, nn.Linear(2, 2))
    elif how == "random":
        path.write_bytes(random.Random(0).randbytes(len(whole)))
    else:
        path.write_bytes(whole[: int(len(whole) * float(how))])


@pytest.mark.parametrize("load", [load_mask, Ticket.load])
@pytest.mark.parametrize("how", ["0", "0.1", "0.99", "random", "weights"])
def test_a_file_that_is_no_ticket_is_one_sentence(tmp_path, load, how):
    path = tmp_path / "ticket"
    drawn(body_and_head()).save(path, weights=True)
    damage(path, how)
    message = "holds no mask" if how == "weights" else "is damaged or was not written by trainflat"
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(tmp_path / "absent")


@pytest.mark.parametrize("shapes", [{"w": [9, 9]}, {"w": [1, 0]}, {"v": [4]}, {}])
def test_a_mask_whose_shapes_do_not_fit_its_bits_is_refused(tmp_path, shapes):
    bits = {"mask/w": torch.tensor([255], dtype=torch.uint8)}
    train.state.write(tmp_path / "mask", bits, {"shapes": shapes})
    with pytest.raises(ValueError, match="mask"):
        load_mask(tmp_path / "mask")
