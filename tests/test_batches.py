from __future__ import annotations

from itertools import chain, islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainflat import train
from trainflat.train.batches import MEGABATCH, enter, first_part, to_device

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
