from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from trainflat.compress import Mask, magnitude, prune, rounds

BERT_BASE = 85_524_480  # weights in its 73 prunable matrices

shapes = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4)
sparsities = st.floats(0, 1, exclude_max=True)


def full(shapes):
    return Mask({f"w{i}": torch.ones(shape, dtype=torch.bool) for i, shape in enumerate(shapes)})


def scores_for(mask, seed, ties):
    """Random scores, of which many are equal if ``ties``."""
    generator = torch.Generator().manual_seed(seed)
    if ties:
        return {name: torch.randint(0, 3, m.shape, generator=generator).float() for name, m in mask.items()}
    return {name: torch.randn(m.shape, generator=generator) for name, m in mask.items()}


def flat(tensors, names):
    return torch.cat([tensors[name].reshape(-1) for name in names])


def by_sorting(scores, kill, within):
    """The slow way: a stable sort of everything that lives, in the order of the mask."""
    alive, values = flat(within, within).numpy(), flat(scores, within).numpy()
    living = np.flatnonzero(alive)
    doomed = living[np.argsort(values[living], kind="stable")[:kill]]
    alive = alive.copy()
    alive[doomed] = False
    return alive


# exact counts


@given(shapes=shapes, sparsity=sparsities, seed=st.integers(0, 3), ties=st.booleans())
def test_exactly_n_minus_round_s_n_weights_live(shapes, sparsity, seed, ties):
    mask = full(shapes)
    pruned = prune(scores_for(mask, seed, ties), sparsity, within=mask)
    assert pruned.alive == mask.size - round(sparsity * mask.size)
    assert pruned.keys() == mask.keys()
    assert mask.alive == mask.size, "the mask that was given stays as it was"


@given(shapes=shapes, sparsity=sparsities, seed=st.integers(0, 3), ties=st.booleans())
def test_per_tensor_pruning_is_exact_in_every_tensor(shapes, sparsity, seed, ties):
    mask = full(shapes)
    pruned = prune(scores_for(mask, seed, ties), sparsity, within=mask, scope="tensor")
    for alive in pruned.values():
        assert int(alive.sum()) == alive.numel() - round(sparsity * alive.numel())


@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("-inf")])
def test_the_count_is_exact_when_all_scores_tie(scope, value):
    mask = full([(10, 10), (50,), (1,)])
    scores = {name: torch.full(m.shape, value) for name, m in mask.items()}
    for sparsity in (0.0, 0.001, 0.1, 0.5, 0.9, 0.999):
        pruned = prune(scores, sparsity, within=mask, scope=scope)
        expected = sum(round(sparsity * n) for n in ([151] if scope == "global" else [100, 50, 1]))
        assert mask.size - pruned.alive == expected


@given(shapes=shapes, sparsity=sparsities, seed=st.integers(0, 5), ties=st.booleans(), start=st.floats(0, 0.9))
def test_pruning_equals_a_stable_sort_of_what_lives(shapes, sparsity, seed, ties, start):
    mask = full(shapes)
    within = prune(scores_for(mask, seed + 100, ties=False), start, within=mask)
    kill = round(sparsity * mask.size) - (mask.size - within.alive)
    assume(kill >= 0)
    scores = scores_for(mask, seed, ties)
    pruned = prune(scores, sparsity, within=within)
    assert np.array_equal(flat(pruned, pruned).numpy(), by_sorting(scores, kill, within))


def test_pruning_equals_a_sort_on_a_larger_model():
    mask = full([(300, 200), (77,), (200, 100)])
    within = prune(scores_for(mask, 1, ties=False), 0.3, within=mask)
    scores = scores_for(mask, 2, ties=False)
    pruned = prune(scores, 0.7, within=within)
    kill = round(0.7 * mask.size) - (mask.size - within.alive)
    assert np.array_equal(flat(pruned, pruned).numpy(), by_sorting(scores, kill, within))


def test_global_scope_ranks_tensors_together_and_tensor_scope_does_not():
    mask = full([(4,), (4,)])
    scores = {"w0": torch.tensor([1.0, 2.0, 3.0, 4.0]), "w1": torch.tensor([5.0, 6.0, 7.0, 8.0])}
    assert [int(m.sum()) for m in prune(scores, 0.5, within=mask).values()] == [0, 4]
    assert [int(m.sum()) for m in prune(scores, 0.5, within=mask, scope="tensor").values()] == [2, 2]


# rounds


@given(shapes=shapes, n=st.integers(1, 9), seed=st.integers(0, 3), ties=st.booleans())
def test_masks_are_nested_over_rounds_and_each_count_is_exact(shapes, n, seed, ties):
    within = full(shapes)
    for i, sparsity in enumerate(rounds(0.9, n)):
        pruned = prune(scores_for(within, seed + i, ties), sparsity, within=within)
        assert pruned & within == pruned
        assert pruned.size - pruned.alive == round(sparsity * pruned.size)
        within = pruned


def test_rounds_are_equal_steps_of_all_weights():
    assert rounds(0.9, 9) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert rounds(0.0, 2) == [0.0, 0.0]
    assert rounds(0.7, 1) == [0.7]


def test_each_round_of_bert_base_kills_exactly_ten_percent_of_its_weights():
    assert [round(sparsity * BERT_BASE) for sparsity in rounds(0.9, 9)] == [k * 8_552_448 for k in range(1, 10)]


@pytest.mark.slow
def test_bert_base_is_pruned_to_exactly_ten_percent_a_round():
    sizes = [(768, 768)] * 49 + [(3072, 768)] * 12 + [(768, 3072)] * 12
    within = full(sizes)
    assert within.size == BERT_BASE
    scores = {name: torch.rand(m.shape) for name, m in within.items()}
    for k, sparsity in enumerate(rounds(0.9, 9), start=1):
        within = prune(scores, sparsity, within=within)
        assert within.size - within.alive == k * 8_552_448


def test_pruning_to_the_sparsity_that_is_there_changes_nothing():
    mask = full([(10,)])
    half = prune({"w0": torch.arange(10.0)}, 0.5, within=mask)
    assert prune({"w0": -torch.arange(10.0)}, 0.5, within=half) == half


# scores of every kind


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64])
def test_scores_of_any_type_are_ranked(dtype):
    scores = {"w0": torch.tensor([5, 1, 4, 2, 3]).to(dtype)}
    assert prune(scores, 0.4, within=full([(5,)]))["w0"].tolist() == [True, False, True, False, True]


def test_float64_scores_are_ranked_in_float64():
    scores = {"w0": 1 + torch.tensor([3, 0, 2, 1], dtype=torch.float64) * 1e-12, "w1": torch.tensor([9.0])}
    assert prune(scores, 0.4, within=full([(4,), (1,)]))["w0"].tolist() == [True, False, True, False]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("sample", [1 << 20, 50])
def test_whole_numbers_are_ranked_as_they_are_however_large(monkeypatch, dtype, sample):
    monkeypatch.setattr(sys.modules["trainflat.compress.prune"], "SAMPLE", sample)
    generator, most = torch.Generator().manual_seed(0), torch.iinfo(dtype).max
    scores = {f"w{i}": most - torch.randint(0, 900, (40, 25), generator=generator).to(dtype) for i in range(2)}
    mask = Mask({name: torch.ones(40, 25, dtype=torch.bool) for name in scores})
    for sparsity in (0.1, 0.5, 0.99):
        pruned = prune(scores, sparsity, within=mask)
        assert np.array_equal(flat(pruned, mask).numpy(), by_sorting(scores, round(sparsity * mask.size), mask))


def test_infinite_scores_come_last_and_minus_infinity_first():
    scores = {"w0": torch.tensor([float("inf"), 0.0, float("-inf"), 1.0])}
    mask = full([(4,)])
    assert prune(scores, 0.25, within=mask)["w0"].tolist() == [True, True, False, True]
    assert prune(scores, 0.75, within=mask)["w0"].tolist() == [True, False, False, False]


def test_scores_that_are_not_stored_row_by_row_are_read_row_by_row():
    scores = {"w0": torch.arange(6.0).reshape(2, 3).t()}
    assert prune(scores, 0.5, within=full([(3, 2)]))["w0"].tolist() == [[False, True], [False, True], [False, True]]
    dense = Mask({"w0": torch.ones(2, 3, dtype=torch.bool).t()})
    first = prune(scores, 0.34, within=dense)
    assert prune(scores, 0.5, within=first)["w0"].tolist() == [[False, True], [False, True], [False, True]]


def test_scores_are_not_changed_and_may_cover_more_than_the_mask():
    net = nn.Linear(8, 4)
    scores = magnitude(net)
    before = {name: tensor.clone() for name, tensor in scores.items()}
    mask = prune(scores, 0.5, within=Mask.dense(net, lambda name, p: p.ndim == 2))
    assert list(mask) == ["weight"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in scores.items())


def test_a_weight_that_is_dead_stays_dead_however_high_its_score():
    within = Mask({"w0": torch.tensor([False, True, True, True])})
    assert prune({"w0": torch.tensor([9.0, 1.0, 2.0, 3.0])}, 0.5, within=within)["w0"].tolist() == [
        False,
        False,
        True,
        True,
    ]


# what is refused


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_pruning_never_revives(scope):
    mask = full([(10,)])
    most = prune({"w0": torch.arange(10.0)}, 0.6, within=mask)
    with pytest.raises(ValueError, match=r"sparsity 40\.0% is below the mask's 60\.0%; prune never revives"):
        prune({"w0": torch.arange(10.0)}, 0.4, within=most, scope=scope)


def test_the_tensor_that_has_more_pruned_already_is_named():
    uneven = prune({"w0": torch.arange(10.0), "w1": torch.arange(10.0, 20.0)}, 0.45, within=full([(10,), (10,)]))
    with pytest.raises(ValueError, match=r"60\.0% is below the mask's 90\.0%; prune never revives, here in 'w0'"):
        prune({"w0": torch.arange(10.0), "w1": torch.arange(10.0)}, 0.6, within=uneven, scope="tensor")


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, 60, float("nan"), float("inf")])
def test_a_sparsity_outside_its_range_is_refused(sparsity):
    message = rf"sparsity is the share that is pruned and must be in \[0, 1\), got {sparsity}"
    with pytest.raises(ValueError, match=message):
        prune({"w0": torch.arange(10.0)}, sparsity, within=full([(10,)]))
    with pytest.raises(ValueError, match=message):
        rounds(sparsity, 3)


def test_less_than_one_round_is_refused():
    with pytest.raises(ValueError, match="there must be at least one round, got 0"):
        rounds(0.5, 0)


@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"w0": torch.ones(4)}, "there is no score for 'w1', which the mask covers"),
        ({"w0": torch.ones(4), "w1": torch.ones(2)}, r"the score of 'w1' has shape \(2,\), the mask \(4,\)"),
        ({"w0": torch.ones(4), "w1": torch.tensor([1.0, float("nan"), 2.0, 3.0])}, "the score of 'w1' holds NaN"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(scope, scores, message):
    with pytest.raises(ValueError, match=message):
        prune(scores, 0.5, within=full([(4,), (4,)]), scope=scope)


def test_an_unknown_scope_is_refused():
    with pytest.raises(ValueError, match="scope must be 'global' or 'tensor', got 'layer'"):
        prune({"w0": torch.ones(4)}, 0.5, within=full([(4,)]), scope="layer")


@pytest.mark.parametrize("sample", [1, 8, 64])
@pytest.mark.parametrize("levels", [2, 10, 10**6])
def test_the_threshold_is_exact_however_few_scores_are_looked_at_first(monkeypatch, sample, levels):
    """A sample brackets the threshold; where it misleads, the bracket opens to everything."""
    monkeypatch.setattr(sys.modules["trainflat.compress.prune"], "SAMPLE", sample)
    generator = torch.Generator().manual_seed(sample)
    scores = {name: torch.randint(levels, (20, 25), generator=generator).float() for name in "abc"}
    mask = Mask({name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()})
    for sparsity in (0.001, 0.3, 0.9, 0.999):
        mask = prune(scores, sparsity, within=mask)
        flat, alive = (torch.cat([tensors[name].reshape(-1) for name in "abc"]) for tensors in (scores, mask))
        order = flat.argsort(stable=True)
        kill = round(sparsity * 1500)
        assert not alive[order[:kill]].any()
        assert alive[order[kill:]].all()
