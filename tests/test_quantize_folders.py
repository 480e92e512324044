"""A transformers model on any grid, whole or shrunk, as a folder: it comes back bit for bit, and its card says what it is."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")

from transformers import BertConfig, BertForSequenceClassification

from trainflat import hf, train
from trainflat.compress import dynamic_int8, grid, plain_tensors, shrink, static_int8, structure, weight_only
from trainflat.hf import small as folders


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20}
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=16, **sizes)).eval()


def words(seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(50, (5, 9), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


GRIDS = {
    "dynamic": (dynamic_int8, "in int8", "activations quantized as they come"),
    "static": (
        lambda model: static_int8(model, [(words(1), None)]),
        "in int8",
        "activations on grids that were calibrated",
    ),
    "eight": (weight_only, "in int8", "a scale for every 128"),
    "four": (lambda model: weight_only(model, bits=4, group_size=8), "in int4", "a scale for every 8"),
}


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("name", GRIDS)
def test_a_folder_on_any_grid_comes_back_bit_for_bit(name, cut, model, tmp_path):
    make, title, sentence = GRIDS[name]
    if cut:
        model = shrink(model, structure(model), {"attention": torch.tensor([1.0, 0.0])})
    small = make(model)
    folders.save(tmp_path, small, notes="A test.")
    again, tokenizer = hf.load(str(tmp_path))
    assert tokenizer is None
    assert grid(again) == grid(small)
    assert torch.equal(train.logits(again, words()), train.logits(small, words()))
    card = (tmp_path / "README.md").read_text()
    assert title in card
    assert sentence in card
    assert "from_pretrained` refuses" in card
    written, plain = train.state.read(tmp_path / "model.safetensors")[0], plain_tensors(small)
    assert written.keys() == plain.keys()
    assert sum(tensor.dtype in (torch.int8, torch.uint8) for tensor in written.values()) >= 2


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["eight", "four"])
def test_weights_on_a_grid_come_back_in_the_float_type_that_they_were_saved_in(name, dtype, cut, model, tmp_path):
    """As models that are served on a GPU are."""
    if cut:
        model = shrink(model, structure(model), {"attention": torch.tensor([1.0, 0.0])})
    small = GRIDS[name][0](copy.deepcopy(model).to(dtype))
    folders.save(tmp_path, small)
    again, _ = hf.load(str(tmp_path))
    assert train.logits(again, words()).dtype == dtype
    assert torch.equal(train.logits(again, words()), train.logits(small, words()))


def test_a_whole_model_that_is_on_no_grid_stays_one_of_transformers(model, tmp_path):
    folders.save(tmp_path, model)
    again, _ = hf.load(str(tmp_path))
    assert grid(again) is None
    assert torch.equal(train.logits(again, words()), train.logits(model, words()))
    assert "refuses" not in (tmp_path / "README.md").read_text()
