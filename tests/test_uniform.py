"""Plain cuts of a wanted size: counted, the largest weights kept, and the size met to a neuron."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainflat import compress
from trainflat.compress import uniform
from trainflat.compress.sizes import full_size
from trainflat.tasks import zoo


def parts():
    return compress.structure(zoo.bert_small(vocabulary=50, positions=8, classes=2))


def counted(shape) -> int:
    """The parameters in the layers of a real model of this shape."""
    model = zoo.bert_small(vocabulary=50, positions=8, classes=2)
    found = compress.structure(model)
    small = compress.shrink(model, found, uniform.opened(model, found, shape))
    return sum(p.numel() for name, p in small.named_parameters() if name.startswith("layers"))


@pytest.mark.parametrize("way", [uniform.narrow, uniform.shallow])
@settings(max_examples=25)
@given(share=st.floats(0.05, 1.0))
def test_the_size_is_met_to_a_neuron_of_each_layer(way, share):
    found = parts()
    wanted = round(share * full_size(found))
    shape = way(found, wanted)
    neuron = 2 * shape.hidden + 1
    kept = sum(1 for n in shape.neurons if n)
    assert counted(shape) <= wanted
    room = all(n == found.ffn[0].units for n in shape.neurons if n)
    assert wanted - counted(shape) < neuron * kept or room


def test_narrow_keeps_the_same_share_of_every_width():
    found = parts()
    shape = uniform.narrow(found, full_size(found) // 4)
    shares = (
        shape.hidden / found.hidden,
        shape.heads[0] / found.attention[0].units,
        shape.neurons[0] / found.ffn[0].units,
    )
    assert all(share == pytest.approx(0.5, abs=0.07) for share in shares)
    assert len(set(shape.heads)) == len(set(shape.neurons)) == 1


def test_shallow_keeps_whole_layers_from_the_bottom():
    found = parts()
    shape = uniform.shallow(found, full_size(found) // 2)
    assert shape == compress.Shape(found.hidden, (found.attention[0].units, 0), (found.ffn[0].units, 0))


@pytest.mark.parametrize("way", [uniform.narrow, uniform.shallow])
def test_the_whole_is_the_whole_and_nothing_is_refused(way):
    found = parts()
    whole = way(found, full_size(found))
    assert whole.hidden == found.hidden
    assert set(whole.neurons) == {found.ffn[0].units}
    with pytest.raises(ValueError, match="as few as 3 parameters"):
        way(found, 3)


def test_what_is_kept_has_the_largest_weights():
    model = zoo.bert_small(vocabulary=50, positions=8, classes=2)
    found = compress.structure(model)
    with torch.no_grad():
        for name in found.attention[0].reads:
            width = found.attention[0].width
            model.get_submodule(name).weight[2 * width : 3 * width] *= 100
        model.get_submodule(found.ffn[1].writes).weight[:, 7] *= 1000
        model.get_submodule(found.ffn[0].writes).weight[5] *= 1000
    z = uniform.opened(model, found, compress.Shape(1, (1, 1), (1, 1)))
    assert z["head"][0].nonzero().flatten().tolist() == [2]
    assert z["intermediate"][1].nonzero().flatten().tolist() == [7]
    assert z["hidden"].nonzero().flatten().tolist() == [5]


def test_a_shape_that_is_larger_than_the_model_is_refused():
    model = zoo.bert_small(vocabulary=50, positions=8, classes=2)
    found = compress.structure(model)
    with pytest.raises(ValueError, match="99 cannot be kept of"):
        uniform.opened(model, found, compress.Shape(8, (99, 1), (1, 1)))
