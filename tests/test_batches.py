from __future__ import annotations

from collections import UserDict, namedtuple
from itertools import chain, cycle, islice, repeat

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainflat import flat, tasks, train
from trainflat.testing.problem import same
from trainflat.train.batches import MEGABATCH, enter, first_part, pair, to_device

sizes = st.integers(1, 40)


@given(size=sizes, batch=st.integers(1, 12), seed=st.integers(0, 5), epoch=st.integers(0, 3), by_length=st.booleans())
def test_each_epoch_holds_every_example_once(size, batch, seed, epoch, by_length):
    lengths = [i % 7 for i in range(size)] if by_length else None
    batches = train.Stream(size, batch, list, seed=seed, lengths=lengths).order(epoch)
    assert sorted(chain.from_iterable(batches)) == list(range(size))
    assert all(1 <= len(indices) <= batch for indices in batches)
    assert sum(len(indices) < batch for indices in batches) <= 1
    assert len(batches) == train.Stream(size, batch, list, seed=seed).per_epoch


@given(size=sizes, batch=st.integers(1, 12), position=st.integers(0, 60), by_length=st.booleans())
def test_entering_at_a_position_equals_drawing_what_comes_before(size, batch, position, by_length):
    lengths = [i * 7 % 11 for i in range(size)] if by_length else None
    stream = train.Stream(size, batch, list, seed=1, lengths=lengths)
    drawn = list(islice(stream, position + 3))[position:]
    assert list(islice(stream.at(position), 3)) == drawn
    assert list(islice(enter(iter(stream), position), 3)) == drawn


def test_entering_late_builds_nothing_that_comes_before():
    built = []

    def collate(indices):
        built.append(indices)
        return indices

    next(train.Stream(10, 2, collate, seed=0).at(5_000_000))
    assert len(built) == 1


def test_the_seed_and_the_epoch_decide_the_order():
    def order(seed, epoch):
        return train.Stream(100, 10, list, seed=seed).order(epoch)

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)


def test_the_stream_leaves_the_random_stream_alone_and_does_not_depend_on_it():
    stream = train.Stream(100, 10, list, seed=0, lengths=range(100))
    before = torch.get_rng_state()
    first = list(islice(stream, 25))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert list(islice(stream, 25)) == first


def test_two_iterators_of_one_stream_do_not_disturb_each_other():
    stream = train.Stream(10, 3, list, seed=0)
    one, other = iter(stream), iter(stream)
    assert [next(one) for _ in range(5)] == [next(other) for _ in range(5)]


def test_batches_by_length_hold_neighbours_and_waste_little():
    lengths = torch.randint(5, 128, (3000,), generator=torch.Generator().manual_seed(0)).tolist()

    def padded(stream):
        return sum(len(b) * max(lengths[i] for i in b) for b in stream.order(0)) / sum(lengths)

    assert padded(train.Stream(3000, 16, list, seed=0)) > 1.5
    assert padded(train.Stream(3000, 16, list, seed=0, lengths=lengths)) < 1.06


def test_batches_by_length_come_in_random_order():
    order = train.Stream(MEGABATCH * 4, 4, list, seed=0, lengths=range(MEGABATCH * 4)).order(0)
    firsts = [indices[0] for indices in order]
    assert firsts != sorted(firsts)
    assert firsts != sorted(firsts, reverse=True)


@pytest.mark.parametrize(
    ("size", "batch", "message"),
    [(0, 4, "there are no training examples"), (4, 0, "batch size 0 is below 1"), (4, -1, "batch size -1 is below 1")],
)
def test_a_stream_of_nothing_is_refused(size, batch, message):
    with pytest.raises(ValueError, match=message):
        train.Stream(size, batch, list, seed=0)


def test_a_batch_is_moved_and_cut_through_all_its_nesting():
    batch = ({"ids": torch.arange(8), "more": [torch.ones(8, 2)]}, torch.zeros(8))
    inputs, labels = first_part(batch, 0.25)
    assert torch.equal(inputs["ids"], torch.tensor([0, 1]))
    assert inputs["more"][0].shape == (2, 2)
    assert labels.shape == (2,)
    moved, _ = to_device(batch, torch.device("meta"))
    assert moved["ids"].device.type == moved["more"][0].device.type == "meta"


def test_a_derived_seed_is_the_same_in_every_process():
    """Half of the first 16 digits of ``printf batches/3/1 | sha256sum``; Python's own hash changes each time."""
    assert train.derive("batches", 3, 1) == 0x775E9C87225AAAC0 // 2


@pytest.mark.parametrize("name", ["", "batches", "score/encoder.layer.0.weight", "ä" * 50])
@pytest.mark.parametrize("number", [0, 1, 2**40])
def test_a_derived_seed_is_one_that_torch_takes(name, number):
    seed = train.derive(name, number)
    assert 0 <= seed < 2**63
    assert torch.Generator().manual_seed(seed).initial_seed() == seed
    assert seed != train.derive(name, number + 1)


# what a batch is


class Encoding(UserDict):
    """As transformers' BatchEncoding: the keys are attributes, too."""

    def __getattr__(self, name):
        if name in vars(self).get("data", {}):
            return self.data[name]
        raise AttributeError(name)


Named = namedtuple("Named", "input_ids labels")
IDS, LABELS = torch.arange(16).reshape(8, 2) % 10, torch.arange(8) % 3
BATCHES = {
    "a dict": {"input_ids": IDS, "labels": LABELS},
    "an encoding": Encoding(input_ids=IDS, labels=LABELS),
    "a named tuple": Named(IDS, LABELS),
    "three parts": (IDS, torch.ones(8), LABELS),
    "a pair with an encoding": (Encoding(input_ids=IDS), LABELS),
}
READ = {
    "a dict": lambda batch: (batch["input_ids"], batch["labels"]),
    "an encoding": lambda batch: (batch.input_ids, batch.labels),
    "a named tuple": lambda batch: (batch.input_ids, batch.labels),
    "three parts": lambda batch: (batch[0], batch[2]),
    "a pair with an encoding": lambda batch: (batch[0].input_ids, batch[1]),
}


def embedder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize("rule", [flat.sam, flat.quarter_batch, flat.m_sam, flat.esam])
@pytest.mark.parametrize("kind", BATCHES)
def test_an_objective_of_ones_own_may_read_any_batch(kind, rule):
    ends = []
    for read, batch in ((READ[kind], BATCHES[kind]), (lambda batch: batch, (IDS, LABELS))):
        net = embedder()
        objective = lambda model, batch, read=read: train.cross_entropy(model, read(batch))
        train.fit(net, objective, [batch] * 2, torch.optim.SGD(net.parameters(), 0.1), steps=2, gradient=rule())
        ends.append([train.snapshot(net), flat.Loss(net, objective, [batch, batch]).value()])
    assert same(*ends)
    assert len(READ[kind](BATCHES[kind])[0]) == 8  # the batch given is whole


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (BATCHES["a dict"], r"this is a dict of 'input_ids', 'labels'\. Make pairs of them"),
        (BATCHES["an encoding"], "this is a Encoding of 'input_ids', 'labels'"),
        (BATCHES["three parts"], "this is a tuple of 3"),
        (IDS, r"this is a Tensor of shape \(8, 2\), as if one batch were given instead of a list of them"),
        (None, "this is a NoneType"),
    ],
)
def test_what_is_no_pair_is_told_wherever_one_is_needed(batch, said):
    net = embedder()
    for use in (
        lambda: train.fit(net, train.cross_entropy, [batch], torch.optim.SGD(net.parameters(), 0.1), steps=1),
        lambda: train.mean_squared_error(net, batch),
        lambda: train.predict(net, [batch]),
        lambda: train.evaluate(net, [batch], lambda logits, labels: {}),
        lambda: flat.features(net, [batch], "1"),
        lambda: pair(batch),
    ):
        with pytest.raises(TypeError, match=rf"a batch is a pair \(inputs, labels\), .* {said}"):
            use()


def test_a_pair_may_be_a_named_tuple_or_hold_an_encoding():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = embedder()

        def forward(self, input_ids):
            return self.net(input_ids)

    net = ByName()
    (expected, _) = train.predict(net.net, [(IDS, LABELS)])[0]
    (found, _) = train.predict(net, [BATCHES["a pair with an encoding"]])[0]
    assert (found == expected).all()
    (found, _) = train.predict(net.net, [BATCHES["a named tuple"]])[0]
    assert (found == expected).all()
    of = (BATCHES["a pair with an encoding"], ({"input_ids": IDS}, LABELS))
    assert torch.equal(*(flat.features(net, [batch], "net.1") for batch in of))


# what has no end


@pytest.mark.parametrize(
    "batches",
    [
        lambda: repeat((IDS, LABELS)),
        lambda: cycle([(IDS, LABELS)]),
        lambda: train.Stream(8, 4, lambda i: (IDS[i], LABELS[i]), seed=0),
        lambda: tasks.digits().batches(0),
    ],
    ids=["repeat", "cycle", "Stream", "task"],
)
def test_to_measure_on_batches_without_end_is_refused(batches):
    net = embedder()
    for measure in (
        lambda: flat.Loss(net, train.cross_entropy, batches()),
        lambda: train.evaluate(net, batches(), lambda logits, labels: {}),
        lambda: train.predict(net, batches()),
        lambda: flat.features(net, batches(), "1"),
    ):
        with pytest.raises(ValueError, match=r"these batches have no end, a .*give so many of them, itertools.islice"):
            measure()


def test_a_batch_that_is_repeated_a_number_of_times_has_an_end():
    assert len(train.predict(embedder(), repeat((IDS, LABELS), 3))) == 3
