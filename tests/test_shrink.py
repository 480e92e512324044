"""A shrunk model equals its gated model, whatever is left of it, and comes back from disk without gates and without pickle."""

from __future__ import annotations

import copy
import json
import zipfile

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from trainflat import hf, train
from trainflat.compress import (
    Gates,
    Shape,
    carve,
    cost,
    dynamic_int8,
    gated,
    granularity,
    load_small,
    plain_tensors,
    save_small,
    shape_of,
    shrink,
    structure,
)
from trainflat.compress.units import alive
from trainflat.hf import small as folders
from trainflat.tasks import zoo

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")

DEPTH, HIDDEN, HEADS, FFN = 3, 12, 3, 10
COMMON = {
    "vocab_size": 30,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "intermediate_size": FFN,
    "num_hidden_layers": DEPTH,
    "max_position_embeddings": 16,
}


def bert(kind="BertForSequenceClassification", **changes):
    return getattr(transformers, kind)(transformers.BertConfig(**{**COMMON, **changes}))


def electra(embedding):
    return transformers.ElectraForSequenceClassification(transformers.ElectraConfig(**COMMON, embedding_size=embedding))


def distilbert():
    sizes = {"dim": HIDDEN, "n_heads": HEADS, "hidden_dim": FFN, "n_layers": DEPTH, "max_position_embeddings": 16}
    return transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(vocab_size=30, **sizes))


def words():
    return zoo.Encoder(zoo.Words(30, 16, HIDDEN, 0.1), classes=2, hidden=HIDDEN, heads=HEADS, layers=DEPTH, ffn=FFN)


def patches():
    return zoo.Encoder(zoo.Patches(8, 4, HIDDEN, 0.1), classes=2, hidden=HIDDEN, heads=HEADS, layers=DEPTH, ffn=FFN)


MODELS = {
    "bert": bert,
    "bert, eager attention": lambda: bert(attn_implementation="eager"),
    "bert for questions": lambda: bert("BertForQuestionAnswering"),
    "roberta": lambda: transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**COMMON)),
    "distilbert": distilbert,
    "electra": lambda: electra(HIDDEN),
    "electra with a projection": lambda: electra(6),
    "words": words,
    "patches": patches,
}
BUILT: dict[tuple[str, torch.dtype], nn.Module] = {}


def built(name, dtype=torch.float64):
    """A model whose every number matters, norms and biases included; each built once."""
    if (name, dtype) not in BUILT:
        torch.manual_seed(0)
        model = MODELS[name]().eval().to(dtype)
        for key, p in model.named_parameters():
            nn.init.normal_(p, mean=1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0, std=0.4)
        BUILT[name, dtype] = model
    return BUILT[name, dtype]


def answers(model, name):
    """Outputs for a padded batch (or images)."""
    with torch.no_grad():
        if name == "patches":
            dtype = next(model.parameters()).dtype
            return model(torch.arange(128, dtype=dtype).reshape(2, 8, 8) / 100)
        mask = torch.ones(2, 7, dtype=torch.long)
        mask[1, 4:] = 0
        tokens = torch.arange(5, 19).reshape(2, 7)
        return train.logits(model, {"input_ids": tokens, "attention_mask": mask})


def draw(found, seed, rates, dtype=torch.float64):
    """Gates that are shut at a rate for each family and soft elsewhere; one hidden dimension at least is open."""
    generator = torch.Generator().manual_seed(seed)
    z = {}
    for (family, shape), rate in zip(found.shapes.items(), rates):
        open_ = torch.rand(shape, generator=generator) >= rate
        z[family] = (open_ * (0.1 + 0.9 * torch.rand(shape, generator=generator))).to(dtype)
    z["hidden"][seed % HIDDEN] = 0.7
    return z


RATE = st.sampled_from([0.0, 0.3, 0.7, 1.0])


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), rates=st.tuples(RATE, RATE, RATE, RATE, RATE))
@example(seed=0, rates=(0.0, 0.0, 0.0, 0.0, 0.0))
@example(seed=1, rates=(0.0, 1.0, 0.0, 0.3, 0.3))  # layer gates open, no head anywhere
@example(seed=2, rates=(1.0, 0.0, 1.0, 0.0, 0.0))  # no sub-layer at all
@example(seed=3, rates=(0.0, 0.0, 0.0, 0.0, 1.0))  # a single hidden dimension
def test_a_shrunk_model_equals_its_gated_model(name, seed, rates):
    model = built(name)
    found = structure(model)
    z = draw(found, seed, rates)
    with gated(model, found, lambda: z):
        expected = answers(model, name)
    small = shrink(model, found, z)
    assert torch.allclose(answers(small, name), expected, atol=1e-9, rtol=0)
    attention, ffn = alive(z)
    shape = shape_of(small)
    assert shape.hidden == int((z["hidden"] > 0).sum())
    assert shape.heads == tuple(((z["head"] > 0).sum(-1) * attention).tolist())
    assert shape.neurons == tuple(((z["intermediate"] > 0).sum(-1) * ffn).tolist())


@pytest.mark.parametrize("name", MODELS)
def test_the_equality_holds_in_float32_to_one_in_a_hundred_thousand(name):
    model = built(name, torch.float32)
    found = structure(model)
    for seed in range(5):
        z = draw(found, seed, (0.2, 0.5, 0.2, 0.6, 0.3), torch.float32)
        with gated(model, found, lambda z=z: z):
            expected = answers(model, name)
        assert torch.allclose(answers(shrink(model, found, z), name), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_one_head_alone_is_enough(name):
    model = built(name)
    found = structure(model)
    z = found.open()
    z["head"].zero_()
    z["head"][1, 2] = 1
    with gated(model, found, lambda: z):
        expected = answers(model, name)
    small = shrink(model, found, z)
    assert shape_of(small).heads == (0, 1, 0)
    assert torch.allclose(answers(small, name), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_with_all_gates_open_nothing_changes(name):
    model = built(name, torch.float32)
    small = shrink(model, structure(model), {})
    assert torch.equal(answers(small, name), answers(model, name))
    assert list(small.state_dict()) == list(model.state_dict())
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in small.parameters()}
    assert not shared, "a copy has its own memory"


# what the reference implementation gets wrong (princeton-nlp/CoFiPruning)


@pytest.mark.parametrize("name", ["bert", "distilbert", "words"])
def test_masked_equals_shrunk_when_all_intermediate_dims_are_dead_issue_36(name):
    """There the masked model keeps the bias and the norm of the FFN, the shrunk one loses both."""
    model = built(name)
    found = structure(model)
    z = found.open()
    z["intermediate"][1] = 0
    with gated(model, found, lambda: z):
        masked = answers(model, name)
    assert shape_of(small := shrink(model, found, z)).neurons == (FFN, 0, FFN)
    assert torch.allclose(answers(small, name), masked, atol=1e-9, rtol=0)
    z["ffn"][1] = 0
    with gated(model, found, lambda: z):
        assert torch.equal(answers(model, name), masked), "shutting the layer's own gate as well changes nothing"


def test_a_dead_post_norm_sublayer_is_the_identity_norm_included():
    model = built("bert")
    found = structure(model)
    z = {"attention": torch.zeros(DEPTH), "ffn": torch.zeros(DEPTH)}
    seen = []
    for layer in found.layers:
        model.get_submodule(layer).register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    try:
        with gated(model, found, lambda: z):
            answers(model, "bert")
    finally:
        for layer in found.layers:
            model.get_submodule(layer)._forward_hooks.popitem()
    assert len(seen) == DEPTH
    assert all(torch.equal(before, after) for before, after in seen)


def test_any_depth_shrinks_not_only_twelve_layers():
    for depth in (1, 5):
        model = bert(num_hidden_layers=depth).eval()
        small = shrink(model, structure(model), {"ffn": torch.zeros(depth)})
        assert shape_of(small).neurons == (0,) * depth


@pytest.mark.parametrize("where", ["student", "roberta-like", "princeton-nlp"])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra with a projection", "bert for questions"])
def test_a_folder_is_read_by_what_it_holds_not_by_its_name_issue_43(name, where, tmp_path):
    """There a path that does not begin with "bert" loads as RoBERTa, and every FFN is lost on the way."""
    model = built(name, torch.float32)
    small = shrink(model, structure(model), draw(structure(model), 5, (0.3, 0.4, 0.3, 0.5, 0.3), torch.float32))
    folders.save(tmp_path / where, small, notes="A test.")
    again, tokenizer = hf.load(str(tmp_path / where))
    assert tokenizer is None
    assert type(again) is type(model)
    assert torch.equal(answers(again, name), answers(small, name))
    assert shape_of(again) == shape_of(small)
    assert not again.training


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("grid", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra with a projection", "bert for questions"])
def test_an_8_bit_folder_holds_integers_and_comes_back_bit_for_bit(name, grid, cut, tmp_path):
    model = built(name, torch.float32)
    if cut:
        model = shrink(model, structure(model), draw(structure(model), 5, (0.3, 0.4, 0.3, 0.5, 0.3), torch.float32))
    small = dynamic_int8(model, granularity=grid)
    folders.save(tmp_path, small, notes="A test.")
    again, _ = hf.load(str(tmp_path))
    assert torch.equal(answers(again, name), answers(small, name))
    assert granularity(again) == grid
    assert not again.training
    assert (shape_of(again) == shape_of(small)) if cut else not hasattr(again, "trainflat_shape")
    assert "int8" in (tmp_path / "README.md").read_text()
    written, plain = train.state.read(tmp_path / "model.safetensors")[0], plain_tensors(small)
    assert written.keys() == plain.keys()
    assert sum(tensor.dtype == torch.int8 for tensor in written.values()) >= 2


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra with a projection", "bert for questions"])
def test_a_whole_model_keeps_its_head(name, tmp_path):
    """A checkpoint given by name gets a fresh head; a model that was kept is finished."""
    model = built(name, torch.float32)
    folders.save(tmp_path, model)
    again, _ = hf.load(str(tmp_path))
    assert torch.equal(answers(again, name), answers(model, name))
    assert "fine-tuned" in (tmp_path / "README.md").read_text()


def test_a_shrunk_folder_is_not_loaded_as_if_it_were_whole_issue_22(tmp_path):
    """There users could not tell masked from shrunk; transformers' own loader must refuse ours, not fill in noise."""
    model = built("bert", torch.float32)
    small = shrink(model, structure(model), {"hidden": (torch.arange(HIDDEN) < 8).float()})
    folders.save(tmp_path, small)
    with pytest.raises(RuntimeError, match="mismatch"):
        transformers.AutoModelForSequenceClassification.from_pretrained(str(tmp_path))


# what shrinking leaves alone, and what can be done after it


def test_the_model_and_its_gates_stay_as_they_were():
    model = copy.deepcopy(built("bert", torch.float32))
    found, start = structure(model), train.snapshot(model)
    z = draw(found, 0, (0.3,) * 5, torch.float32)
    kept = {family: gate.clone() for family, gate in z.items()}
    shrink(model, found, z)
    assert all(torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(z[family], gate) for family, gate in kept.items())


def test_shrinking_while_the_gates_are_on_gives_a_model_without_gates():
    model = copy.deepcopy(built("words", torch.float32)).train()
    gates = Gates(structure(model))
    for alpha in gates.log_alpha.values():
        alpha.data.uniform_(-3, 3)
    with gates.on(model):
        answers(model, "words")
        small = shrink(model, gates.structure, gates.deterministic()).eval()
        expected = answers(model.eval(), "words")
    assert not any(inner._forward_hooks or inner._forward_pre_hooks for inner in small.modules())
    assert torch.allclose(answers(small, "words"), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "distilbert", "words"])
def test_a_shrunk_model_trains_and_every_parameter_learns(name):
    model = built(name, torch.float32)
    z = {"attention": torch.tensor([0.0, 1, 1]), "ffn": torch.tensor([1.0, 0, 1])}
    small = shrink(model, structure(model), z)
    batch = {"input_ids": torch.arange(5, 19).reshape(2, 7), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
    step = train.fit(
        small, train.cross_entropy, [(batch, torch.tensor([0, 1]))], torch.optim.SGD(small.parameters()), steps=1
    )
    assert len(step) == 1
    assert all(p.grad is not None for p in small.parameters())


def test_a_frozen_parameter_stays_frozen():
    model = copy.deepcopy(built("bert", torch.float32))
    model.bert.embeddings.requires_grad_(False)
    small = shrink(model, structure(model), {"hidden": (torch.arange(HIDDEN) < 8).float()})
    assert not any(p.requires_grad for p in small.bert.embeddings.parameters())
    assert small.bert.pooler.dense.weight.requires_grad


def test_a_shrunk_model_is_smaller_and_can_be_quantized():
    model = built("bert", torch.float32)
    small = shrink(model, structure(model), {"head": torch.tensor([[1.0, 0, 0]] * 3), "ffn": torch.zeros(3)})
    inputs = {"input_ids": torch.arange(5, 19).reshape(2, 7)}
    whole, less = (cost(net, inputs, runs=1, warmup=0) for net in (model, small))
    assert less.parameters == sum(p.numel() for p in small.parameters()) < whole.parameters
    assert less.multiply_adds < whole.multiply_adds
    assert less.bytes < whole.bytes
    eight = dynamic_int8(small)
    assert train.logits(eight, inputs).shape == (2, 2)
    assert shape_of(eight) == shape_of(small)


def test_what_the_layers_say_stays_available_to_distillation():
    model = built("bert", torch.float32)
    z = {"ffn": torch.zeros(DEPTH), "attention": torch.tensor([0.0, 1, 0])}
    small = shrink(model, structure(model), z)
    states = small(torch.arange(5, 12)[None], output_hidden_states=True).hidden_states
    assert len(states) == DEPTH + 1
    assert torch.equal(states[0], states[1])


# mistakes


def test_gates_that_leave_nothing_or_do_not_fit_are_refused():
    model = built("words")
    found = structure(model)
    with pytest.raises(ValueError, match="every hidden dimension is shut"):
        shrink(model, found, {"hidden": torch.zeros(HIDDEN)})
    with pytest.raises(ValueError, match=r"the gates 'head' have shape \(2, 3\), this structure needs \(3, 3\)"):
        shrink(model, found, {"head": torch.ones(2, 3)})
    for what in (float("nan"), float("inf"), -1.0):
        with pytest.raises(
            ValueError, match="the gates 'head' hold NaN, infinity or a negative number; 0 is shut, 1 wide open"
        ):
            shrink(model, found, {"head": torch.full((3, 3), 0.5).index_fill(0, torch.tensor([1]), what)})
    with pytest.raises(ValueError, match="does not fit into"):
        carve(copy.deepcopy(model), found, Shape(HIDDEN + 1, (1, 1, 1), (1, 1, 1)))
    with pytest.raises(ValueError, match="Encoder was not made by shrink"):
        shape_of(model)


@pytest.mark.parametrize(
    "gates", [{"heads": torch.zeros(3, 3)}, {"hidden": torch.ones(HIDDEN), "heads": torch.ones(3, 3)}]
)
def test_a_family_of_gates_that_does_not_exist_is_refused(gates):
    model = built("words")
    found = structure(model)
    message = "families are some of attention, head, ffn, intermediate, hidden, got 'heads'"
    with pytest.raises(ValueError, match=message):
        shrink(model, found, gates)
    with gated(model, found, lambda: gates), pytest.raises(ValueError, match=message):
        answers(model, "words")


def test_gates_and_structures_of_another_model_are_refused_and_leave_no_hook():
    model = built("words")
    found, without = structure(model), copy.deepcopy(model)
    parent, _, norm = found.ffn[-1].norm.rpartition(".")
    delattr(without.get_submodule(parent), norm)
    wide = zoo.bert_small(vocabulary=30, positions=16, classes=2)
    sizes = r"of another model: its 'layers\.0\.attention\.output' maps 12 to 12, here it maps 64 to 64"
    for other, error, message in (
        (built("bert"), LookupError, "has no module"),
        (without, LookupError, f"has no module '{found.ffn[-1].norm}'"),
        (wide, ValueError, sizes),
    ):
        with pytest.raises(error, match=message):
            shrink(other, found, found.open())
        with pytest.raises(error, match=message), Gates(found).on(other):
            pass
        assert not any(inner._forward_hooks or inner._forward_pre_hooks for inner in other.modules())


def test_arguments_of_the_wrong_kind_are_told_what_belongs_there():
    model = built("words")
    found = structure(model)
    gates = Gates(found)
    for call, message in (
        (lambda: Gates(model), r"a structure is what compress\.structure\(model\) returns, got Encoder"),
        (lambda: shrink(model, gates, gates.deterministic()), r"a structure is .*, got Gates"),
        (lambda: shrink(found, model, gates.deterministic()), "a structure is .*, got Encoder"),
        (
            lambda: shrink(model, found, gates),
            r"gates are \{family: tensor\}, such as gates\.deterministic\(\); got Gates",
        ),
        (lambda: shrink(model, found, {"ffn": [1.0, 0.0, 1.0]}), "the gates 'ffn' must be a tensor, got list"),
        (lambda: gates.on(found).__enter__(), "gates go on a model, got Structure"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


@pytest.mark.parametrize(
    "plain", [{}, {"hidden": 0, "heads": [1], "neurons": [1]}, {"hidden": 1, "heads": 3, "neurons": [1]}]
)
def test_what_is_no_shape_is_refused(plain):
    with pytest.raises(ValueError, match="no shape of a model"):
        Shape.of(plain)


# on disk


@pytest.mark.parametrize("name", ["words", "patches"])
def test_an_encoder_of_ours_comes_back_bit_for_bit(name, tmp_path):
    model = built(name, torch.float32)
    small = shrink(model, structure(model), draw(structure(model), 3, (0.4, 0.4, 0.4, 0.5, 0.4), torch.float32))
    save_small(tmp_path / "new", small)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["model.safetensors", "small.json"]
    assert Shape.of(json.loads((tmp_path / "new" / "small.json").read_text())) == shape_of(small)
    again = load_small(tmp_path / "new", MODELS[name])
    assert torch.equal(answers(again, name), answers(small, name))
    assert all(p.requires_grad for p in again.parameters())
    assert not any(p.is_meta for p in again.parameters())


def test_no_file_is_a_pickle(tmp_path):
    model = built("bert", torch.float32)
    folders.save(tmp_path, shrink(model, structure(model), {"ffn": torch.zeros(DEPTH)}))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["README.md", "config.json", "model.safetensors", "small.json"]
    assert not any(zipfile.is_zipfile(file) or file.read_bytes()[:2] == b"\x80\x02" for file in files)
    card = (tmp_path / "README.md").read_text()
    assert "FFN neurons: 0, 0, 0" in card
    assert "hf.load(" in card


def test_a_tokenizer_travels_with_its_model(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    model = built("bert", torch.float32)
    folders.save(tmp_path / "small", shrink(model, structure(model), {}), tokenizer)
    again, words = hf.load(str(tmp_path / "small"))
    assert words("the cat sat")["input_ids"] == tokenizer("the cat sat")["input_ids"]
    assert again(**words("the cat", return_tensors="pt")).logits.shape == (1, 2)


def test_a_folder_that_is_damaged_or_of_another_model_is_one_sentence(tmp_path):
    model = built("words", torch.float32)
    with pytest.raises(FileNotFoundError, match=r"has no small\.json"):
        load_small(tmp_path, words)
    with pytest.raises(FileNotFoundError, match=r"has no small\.json"):
        folders.load(tmp_path)
    save_small(tmp_path, shrink(model, structure(model), {}))
    with pytest.raises(ValueError, match="is of another architecture: 'embeddings"):
        load_small(tmp_path, patches)
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        folders.load(tmp_path)
    (tmp_path / "small.json").write_text("{}")
    with pytest.raises(ValueError, match=r"small\.json is damaged"):
        load_small(tmp_path, words)
    with pytest.raises(TypeError, match="Encoder is not a transformers model"):
        folders.save(tmp_path, shrink(model, structure(model), {}))


def test_a_configuration_cannot_name_just_anything(tmp_path):
    model = built("bert", torch.float32)
    folders.save(tmp_path, shrink(model, structure(model), {}))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["set_seed"]}))
    with pytest.raises(ValueError, match="names the model 'set_seed', which transformers does not have"):
        hf.load(str(tmp_path))
