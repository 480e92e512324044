"""The tasks that ship: their data is real, split once and for all, and small models learn it in seconds."""

from __future__ import annotations

import sys
from itertools import islice

import pytest
import torch
from torch import Tensor

from trainflat import tasks, testing, train
from trainflat.tasks import zoo
from trainflat.tasks.classification import Classification, split, stratified

FACTORIES = {"digits": tasks.digits, "docstrings": tasks.docstrings}


@pytest.fixture(params=FACTORIES)
def make(request):
    return FACTORIES[request.param]


@pytest.fixture
def task(make) -> Classification:
    return make()


def _keys(task: Classification, part: str) -> list[tuple]:
    """Something hashable for each example, equal where the model's input is equal; padding does not count."""
    examples = getattr(task, part)
    keys = []
    for i in range(len(examples)):
        inputs, _ = examples.batch([i])
        tensor = inputs["input_ids"] if isinstance(inputs, dict) else inputs
        keys.append(tuple(tensor.flatten().tolist()))
    return keys


def _shares(labels: Tensor) -> Tensor:
    return labels.bincount() / len(labels)


# --- both tasks ---


def test_task_obeys_the_laws(task):
    testing.check_task(task)


def test_training_and_heldout_examples_share_nothing(task):
    training, heldout = _keys(task, "training"), _keys(task, "heldout")
    assert len(training) > 1000
    assert len(heldout) >= 500
    assert not set(training) & set(heldout)


def test_classes_have_the_same_share_in_both_parts(task):
    difference = _shares(task.training.labels) - _shares(task.heldout.labels)
    assert difference.abs().max() < 1 / len(task.heldout)  # rounding each class moves it by at most half an example


def test_holdout_comes_out_of_training_and_leaves_the_test_examples_alone(make):
    whole, part = make(), make(holdout=0.25)
    if make is tasks.digits:  # the tokenizer of the other is trained on fewer texts, so its numbers differ
        kept, taken = _keys(part, "training"), _keys(part, "heldout")
        assert sorted(kept + taken) == sorted(_keys(whole, "training"))
        assert not set(kept) & set(taken)
        assert not set(taken) & set(_keys(whole, "heldout"))
    assert len(part.training) + len(part.heldout) == len(whole.training)
    assert (_shares(part.heldout.labels) - _shares(part.training.labels)).abs().max() < 1 / len(part.heldout)
    assert part.note != whole.note
    assert "taken from the training set" in part.note


def test_another_seed_gives_other_weights_and_the_same_data(task):
    one, other = task.model(seed=0), task.model(seed=1)
    assert not torch.equal(one.layers[0].attention.query.weight, other.layers[0].attention.query.weight)
    epochs = [
        sorted(label for _, labels in islice(task.batches(seed), task.steps_per_epoch) for label in labels.tolist())
        for seed in (0, 1)
    ]
    assert epochs[0] == epochs[1] == sorted(task.training.labels.tolist())


def test_making_a_model_leaves_the_random_stream_alone(task):
    before = torch.get_rng_state()
    task.model(seed=3)
    task.inputs(4)
    assert torch.equal(torch.get_rng_state(), before)


def test_model_does_not_depend_on_the_random_stream(task):
    one = train.snapshot(task.model(seed=0))
    torch.rand(10)
    other = train.snapshot(task.model(seed=0))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_prunable_set_is_the_matrices_of_blocks_and_pooler(task):
    model = task.model(seed=0)
    chosen = {name: p.numel() for name, p in model.named_parameters() if task.prunable(name, p)}
    layers, hidden, ffn = 2, 64, {"digits": 128, "docstrings": 256}[task.name]
    assert len(chosen) == 6 * layers + 1
    assert sum(chosen.values()) == layers * (4 * hidden**2 + 2 * hidden * ffn) + hidden**2
    assert {"layers.0.attention.query.weight", "layers.1.output.weight", "pooler.dense.weight"} <= set(chosen)
    linear = {f"{name}.weight" for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    assert set(chosen) <= linear
    assert linear - set(chosen) <= {"classifier.weight", "embeddings.projection.weight"}


def test_inputs_wrap_around_after_the_last_example(task):
    size = len(task.heldout) + 2
    inputs, again = task.inputs(size), task.inputs(2)
    if isinstance(inputs, dict):
        inputs, again = inputs["attention_mask"].sum(1), again["attention_mask"].sum(1)
    assert len(inputs) == size
    assert torch.equal(inputs[-2:], again)


def test_texts_are_padded_or_cut_to_a_length_and_images_are_not():
    task = tasks.docstrings()
    own, padded, cut = task.inputs(3), task.inputs(3, length=48), task.inputs(3, length=5)
    width = own["input_ids"].shape[1]
    assert [x.shape for x in padded.values()] == [(3, 48), (3, 48)]
    assert torch.equal(padded["attention_mask"].sum(1), own["attention_mask"].sum(1))
    assert not padded["input_ids"][:, width:].any()
    assert torch.equal(cut["input_ids"], own["input_ids"][:, :5])
    model = task.model(seed=0).eval()
    with torch.no_grad():
        assert torch.allclose(model(**padded), model(**own), atol=1e-5)
    with pytest.raises(ValueError, match="length must be from 1 to 48 tokens, .*; got 49"):
        task.inputs(3, length=49)
    with pytest.raises(ValueError, match="examples of digits are not made of tokens"):
        tasks.digits().inputs(3, length=8)


@pytest.mark.parametrize("options", [{"holdout": 1.0}, {"holdout": -0.1}, {"batch_size": 0}])
def test_bad_option_is_refused_while_planning_and_when_made(make, options):
    (name,) = options
    for refuse in (make, make.fingerprint):
        with pytest.raises(ValueError, match=f"{name} .* got {options[name]}"):
            refuse(**options)


def test_holdout_too_small_to_take_an_example_is_refused(make):
    with pytest.raises(ValueError, match="takes 0 and leaves"):
        make(holdout=1e-6)


@pytest.mark.parametrize(("name", "epochs", "least"), [("digits", 6, 0.9), ("docstrings", 2, 0.5)])
def test_short_training_reaches_far_above_chance(name, epochs, least):
    task = FACTORIES[name]()
    model = task.model(seed=0)
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    before = task.evaluate(model)["accuracy"]
    train.fit(model, task.objective, task.batches(0), adam, steps=epochs * task.steps_per_epoch, lr=train.linear())
    assert before < 0.3
    assert task.evaluate(model)["accuracy"] > least


# --- splitting ---


def test_stratified_takes_the_rounded_share_of_each_class():
    labels = torch.tensor([0] * 10 + [1] * 31 + [2] * 4)
    kept, taken = stratified(labels, 0.25, seed=5)
    assert labels[taken].bincount().tolist() == [round(2.5), round(7.75), 1]
    assert sorted(kept + taken) == list(range(45))
    assert stratified(labels, 0.25, seed=5) == (kept, taken)
    assert stratified(labels, 0.25, seed=6) != (kept, taken)
    assert stratified(labels, 0.0, seed=5) == (list(range(45)), [])


def test_split_with_holdout_never_touches_the_test_part():
    labels = torch.arange(200) % 4
    training, tested = split(labels, test=0.3, holdout=0.0, name="a")
    kept, scored = split(labels, test=0.3, holdout=0.5, name="a")
    assert sorted(kept + scored) == training
    assert not set(scored) & set(tested)


# --- the encoders ---


def test_patches_are_squares_row_by_row():
    patches = zoo.Patches(side=4, patch=2, hidden=4, dropout=0.0)
    with torch.no_grad():
        patches.projection.weight.copy_(torch.eye(4))
        patches.projection.bias.zero_()
        patches.position.weight.zero_()
    image = torch.arange(16.0).view(1, 4, 4)
    assert patches(image)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_attention_is_the_formula():
    attention, hidden = zoo.Attention(hidden=6, heads=2), torch.randn(2, 5, 6)
    parts = [matrix(hidden).view(2, 5, 2, 3) for matrix in (attention.query, attention.key, attention.value)]
    mixed = torch.empty(2, 5, 6)
    for head in range(2):
        query, key, value = (part[:, :, head] for part in parts)
        mixed[:, :, 3 * head : 3 * head + 3] = (query @ key.mT / 3**0.5).softmax(-1) @ value
    torch.testing.assert_close(attention(hidden), attention.output(mixed))


def test_padding_makes_no_difference():
    task = tasks.docstrings()
    model = task.model(seed=0).eval()
    short = [i for i, length in enumerate(task.heldout.lengths) if length <= 30]
    inputs, _ = task.heldout.batch(short[:8])
    ids, mask = (torch.nn.functional.pad(inputs[name], (0, 3)) for name in ("input_ids", "attention_mask"))
    ids[mask == 0] = torch.randint(5, 100, ((mask == 0).sum(),))  # whatever stands there
    with torch.no_grad():
        torch.testing.assert_close(model(ids, mask), model(**inputs), rtol=1e-5, atol=1e-6)


def test_text_longer_than_the_positions_is_refused():
    with pytest.raises(ValueError, match="9 tokens .* 8 positions"):
        zoo.bert_small(vocabulary=10, positions=8, classes=2)(torch.ones(1, 9, dtype=torch.long))


def test_text_alone_scores_as_in_a_batch():
    task = tasks.docstrings()
    model = task.model(seed=0).eval()
    with torch.no_grad():
        together = model(**task.inputs(6))
        alone = torch.cat([model(**task.heldout.batch([i])[0]) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: zoo.Attention(10, 4), "10 does not divide into 4 heads"), (lambda: zoo.vit_small(patch=3), "3 x 3")],
)
def test_shapes_that_do_not_divide_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_note_says_the_sizes_and_the_version():
    note = tasks.docstrings().note
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in note
    assert "7 areas" in note
