"""What can be removed of an encoder, read from its modules; and how much of it lives, counted two ways."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainflat.compress import Dialect, Shape, Structure, shape_of, shrink, structure
from trainflat.compress.sizes import full_size, gates_of, shrunk, size, sparsity
from trainflat.compress.units import FAMILIES
from trainflat.tasks import zoo

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")

COMMON = {
    "vocab_size": 30,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
}


def bert(kind="BertForSequenceClassification", **changes):
    return getattr(transformers, kind)(transformers.BertConfig(**{**COMMON, "max_position_embeddings": 16, **changes}))


def electra(embedding):
    config = transformers.ElectraConfig(**COMMON, max_position_embeddings=16, embedding_size=embedding)
    return transformers.ElectraForSequenceClassification(config)


def distilbert():
    config = transformers.DistilBertConfig(vocab_size=30, dim=12, n_heads=3, hidden_dim=20, n_layers=2)
    return transformers.DistilBertForSequenceClassification(config)


def roberta():
    config = transformers.RobertaConfig(**COMMON, max_position_embeddings=16)
    return transformers.RobertaForSequenceClassification(config)


def words():
    return zoo.Encoder(zoo.Words(30, 16, 12, 0.1), classes=2, hidden=12, heads=3, layers=2, ffn=20)


MODELS = {
    "bert": (bert, "bert.pooler.dense"),
    "bert for questions": (lambda: bert("BertForQuestionAnswering"), "qa_outputs"),
    "roberta": (roberta, "classifier.dense"),
    "distilbert": (distilbert, "pre_classifier"),
    "electra": (lambda: electra(12), "classifier.dense"),
    "electra with a projection": (lambda: electra(6), "classifier.dense"),
    "zoo": (words, "pooler.dense"),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_has_its_parts(name):
    build, reader = MODELS[name]
    model = build()
    found = structure(model)
    assert found.shapes == {"attention": (2,), "head": (2, 3), "ffn": (2,), "intermediate": (2, 20), "hidden": (12,)}
    assert found.readers == (reader,)
    layers = sum(p.numel() for layer in found.layers for p in model.get_submodule(layer).parameters())
    assert full_size(found) == layers, "every parameter of the layers belongs to a part"


def test_bert_base_counts_as_the_reference_counts_it():
    with torch.device("meta"):
        found = structure(transformers.BertForSequenceClassification(transformers.BertConfig()))
    assert full_size(found, "cofi") == 85_017_600
    everything = {family: torch.ones(shape, dtype=torch.float64) for family, shape in found.shapes.items()}
    assert int(size(found, everything, "cofi")) == 84_971_520, "its known bias: 0.05 % sparse with all gates open"
    assert full_size(found) == 12 * 7_087_872 == int(size(found, everything))


def test_expected_size_in_the_references_counting_equals_its_outer_sums():
    found = structure(bert())
    p = {family: torch.rand(shape, dtype=torch.float64) for family, shape in found.shapes.items()}
    heads = (p["attention"][:, None] * p["head"]).numpy().reshape(-1)
    neurons = (p["ffn"][:, None] * p["intermediate"]).numpy().reshape(-1)
    per_head = (12 * 12 * 4 + 12 * 4) // 3
    theirs = np.outer(p["hidden"], heads).sum() * per_head / 12 + np.outer(p["hidden"], neurons).sum() * 2
    assert math.isclose(float(size(found, p, "cofi")), theirs, rel_tol=1e-12)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), rate=st.sampled_from([0.2, 0.5, 0.9]))
def test_exact_size_equals_counting_the_tensors_of_the_shrunk_model(name, seed, rate):
    model = cached(name)
    found = structure(model)
    generator = torch.Generator().manual_seed(seed)
    z = {family: (torch.rand(shape, generator=generator) < rate).double() for family, shape in found.shapes.items()}
    z["hidden"][0] = 1
    small = shrink(model, found, z)
    counted = sum(p.numel() for layer in found.layers for p in small.get_submodule(layer).parameters())
    assert int(size(found, z)) == counted


BUILT: dict[str, nn.Module] = {}


def cached(name):
    return BUILT.setdefault(name, MODELS[name][0]())


def test_a_shrunk_berts_sparsities_are_those_counted_by_hand():
    """12 hidden, 3 heads, 20 neurons, 2 layers; left: 8 hidden, one head of width 4 in layer 0, five neurons in layer 1."""
    model = bert()
    found = shrunk(model, structure(model), Shape(hidden=8, heads=(1, 0), neurons=(0, 5)))
    layer = 4 * (12 * 12 + 12) + 2 * 12 + (2 * 12 * 20 + 20 + 12) + 2 * 12  # attention, norm, FFN, norm
    left = (4 * 4 * 8 + 3 * 4 + 8 + 2 * 8) + (2 * 8 * 5 + 5 + 8 + 2 * 8)
    assert found["layers"] == 1 - left / (2 * layer)
    tables, head = 30 + 16 + 2, 12 * 12 + 12 + 2 * 12 + 2
    pooler = 12 * 8 + 12 + 2 * 12 + 2  # reads 8 dimensions, still answers in 12
    assert found["total"] == 1 - (left + 8 * (tables + 2) + pooler) / (2 * layer + 12 * (tables + 2) + head)
    pairs = 8 * 1 * (4 * 12 * 12 + 4 * 12) // 3 / 12 + 2 * 8 * 5
    assert math.isclose(found["cofi_constraint"], 1 - pairs / (2 * (4 * 156 + 2 * 12 * 20 + 12 + 20)))
    assert found["cofi_reported"] == found["layers"], "of a classifier its evaluation counts the layers alone"


def test_the_reference_reports_what_is_left_of_a_head_that_is_no_classifier():
    model = bert("BertForQuestionAnswering")
    parts, shape = structure(model), Shape(hidden=6, heads=(3, 3), neurons=(20, 20))
    found, layers = shrunk(model, parts, shape), full_size(parts)
    left = int(size(parts, gates_of(parts, shape)))
    assert found["layers"] == 1 - left / layers
    assert found["cofi_reported"] == 1 - (left + 2 * 6 + 2) / (layers + 2 * 12 + 2)


def test_one_head_and_136_neurons_a_layer_are_the_published_size_of_cofis_mnli_model():
    """4,920,106 parameters in the layers, which its README calls 94.3 %; of BERT-base's 85,054,464 they are 94.2."""
    with torch.device("meta"):
        model = transformers.BertForSequenceClassification(transformers.BertConfig())
    found = shrunk(model, structure(model), Shape(768, (1,) * 12, (136,) * 12))
    assert math.isclose((1 - found["cofi_reported"]) * 12 * 7_087_872, 4_920_106, rel_tol=2e-3)
    assert round(found["cofi_reported"], 3) == 0.942
    assert found["total"] < 0.75, "the embeddings stay: of all parameters not even three quarters are gone"


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=10)
@given(
    hidden=st.integers(1, 12),
    heads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    neurons=st.tuples(st.integers(0, 20), st.integers(0, 20)),
)
def test_sparsities_of_a_shape_equal_counting_the_tensors_of_the_model_cut_to_it(name, hidden, heads, neurons):
    model = cached(name)
    parts, shape = structure(model), Shape(hidden, heads, neurons)
    before = {key: p.clone() for key, p in model.named_parameters()}
    found = shrunk(model, parts, shape)
    assert all(torch.equal(p, before[key]) for key, p in model.named_parameters()), "nothing was cut"
    small = shrink(model, parts, gates_of(parts, shape))
    assert shape_of(small) == shape
    whole, left = (sum(p.numel() for p in net.parameters()) for net in (model, small))
    assert found["total"] == 1 - left / whole
    assert math.isclose(found["layers"], float(sparsity(parts, gates_of(parts, shape))), abs_tol=1e-12)
    assert found["cofi_constraint"] == float(sparsity(parts, gates_of(parts, shape), "cofi"))


def test_a_shape_that_does_not_fit_is_refused_before_it_is_counted():
    with pytest.raises(ValueError, match="does not fit into"):
        shrunk(bert(), structure(bert()), Shape(13, (3, 3), (20, 20)))


@pytest.mark.parametrize("counting", ["exact", "cofi"])
def test_expected_size_is_the_mean_over_sampled_masks(counting):
    found = structure(words())
    generator = torch.Generator().manual_seed(0)
    p = {family: torch.rand(shape, generator=generator).double() for family, shape in found.shapes.items()}
    draws = torch.tensor(
        [
            float(
                size(
                    found, {f: (torch.rand(q.shape, generator=generator) < q).double() for f, q in p.items()}, counting
                )
            )
            for _ in range(4000)
        ]
    )
    error = draws.std() / len(draws) ** 0.5
    assert abs(draws.mean() - size(found, p, counting)) < 4 * error


@pytest.mark.parametrize("counting", ["exact", "cofi"])
def test_the_gradient_of_sparsity_equals_finite_differences(counting):
    found = structure(words())
    p = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in found.shapes.values()]
    assert torch.autograd.gradcheck(
        lambda *q: sparsity(found, dict(zip(FAMILIES, q)), counting), p, eps=1e-6, atol=1e-9, rtol=1e-6
    )


def test_a_counting_has_one_of_two_names():
    found = structure(words())
    with pytest.raises(ValueError, match="counting must be 'exact' or 'cofi', got 'nonzero'"):
        size(found, found.open(), "nonzero")


class Mine(nn.Module):
    """Somebody's own encoder, with other names."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Module()
        self.embed.tokens = nn.Embedding(9, 8)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.out = nn.Linear(8, 2)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n_head = 2
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down = nn.Linear(8, 10), nn.Linear(10, 8)
        self.ln1, self.ln2 = nn.LayerNorm(8), nn.LayerNorm(8)


def test_a_users_model_brings_its_own_names_in_a_few_lines():
    names = Dialect(
        layers="blocks",
        embeddings="embed",
        query="q",
        key="k",
        value="v",
        attention_output="o",
        attention_norm="ln1",
        up="up",
        down="down",
        ffn_norm="ln2",
        counters=("n_head",),
        no_attention={"o": "zero"},
        no_ffn={"down": "zero"},
    )
    found = structure(Mine(), names)
    assert found.shapes["head"] == (3, 2)
    assert found.embeddings == ("embed.tokens",)
    assert found.readers == ("out",)
    assert full_size(found) == sum(p.numel() for p in Mine().blocks.parameters())


def test_a_model_without_encoder_layers_says_how_to_name_them():
    with pytest.raises(LookupError, match=r"Sequential has no encoder layers .* compress\.Dialect"):
        structure(nn.Sequential(nn.Linear(2, 2)))


def test_a_language_models_tied_embeddings_are_refused():
    with pytest.raises(ValueError, match="embeddings of BertForMaskedLM are also its output layer"):
        structure(bert("BertForMaskedLM"))


def test_layers_that_differ_are_refused():
    found = structure(words())
    with pytest.raises(ValueError, match="all layers must have as many heads"):
        Structure(**{**vars(found), "attention": (found.attention[0], found.ffn[1])})
    with pytest.raises(ValueError, match="at least one layer"):
        Structure(**{**vars(found), "layers": (), "attention": (), "ffn": ()})


@pytest.mark.parametrize("gone", [{"attention": [1.0, 0.0]}, {"attention": [0.0, 1.0]}, {"ffn": [0.0, 1.0]}], ids=str)
def test_a_model_that_was_shrunk_by_a_sublayer_is_refused(gone):
    small = shrink(words(), structure(words()), {family: torch.tensor(gates) for family, gates in gone.items()})
    with pytest.raises(ValueError, match="was shrunk, and nothing is left of some sub-layers .*; gates go on before"):
        structure(small)


def test_a_missing_module_is_named():
    with pytest.raises(LookupError, match="Mine has no module 'embeddings', where a Module belongs"):
        structure(
            Mine(),
            Dialect("blocks", "q", "k", "v", "o", "ln1", "up", "down", "ln2", ("n_head",), {}, {}),
        )
