"""Reading the `Structure` of a model from how its architecture names things; nothing of transformers is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

from torch import nn

from trainflat.compress.units import Structure, Sublayer, module

__all__ = ["Dialect", "layers", "structure"]


@dataclass(frozen=True)
class Dialect:
    """How an architecture names what every encoder has: linear layers and norms relative to a layer, the rest to the encoder.

    ``counters`` are the attributes that say how many heads there are, the number itself first; those that go with it (a
    number of rows) after it. ``no_attention`` and ``no_ffn`` say what stands in for which module when a sub-layer is
    removed, so that only the residual passes: the words of `trainflat.compress.standins`.
    """

    layers: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    up: str
    down: str
    ffn_norm: str
    counters: tuple[str, ...]
    no_attention: Mapping[str, str]
    no_ffn: Mapping[str, str]
    embeddings: str = "embeddings"
    projection: str = "embeddings_project"
    pre_norm: bool = False
    last_norm: str | None = None


DIALECTS = {
    "bert": Dialect(  # BERT, MiniLM, RoBERTa, ELECTRA and their kin in transformers
        layers="encoder.layer",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention_output="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        up="intermediate.dense",
        down="output.dense",
        ffn_norm="output.LayerNorm",
        counters=("attention.self.num_attention_heads", "attention.self.all_head_size"),
        no_attention={"attention": "first, nothing"},
        no_ffn={"intermediate": "first", "output": "second"},
    ),
    "distilbert": Dialect(
        layers="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        ffn_norm="output_layer_norm",
        counters=("attention.n_heads",),
        no_attention={"attention": "zero, nothing", "sa_layer_norm": "first"},
        no_ffn={"ffn": "zero", "output_layer_norm": "first"},
    ),
    "trainflat": Dialect(  # the encoders of `trainflat.tasks.zoo`
        layers="layers",
        query="attention.query",
        key="attention.key",
        value="attention.value",
        attention_output="attention.output",
        attention_norm="attention_norm",
        up="intermediate",
        down="output",
        ffn_norm="ffn_norm",
        counters=("attention.heads",),
        no_attention={"attention": "zero", "attention_norm": "first"},
        no_ffn={"ffn_norm": "first", "intermediate": "zero", "output": "first"},
        pre_norm=True,
        last_norm="norm",
    ),
}


def structure(model: nn.Module, dialect: Dialect | None = None) -> Structure:
    """Read the removable parts of an encoder from its modules' names and shapes.

    BERT, MiniLM, RoBERTa, DistilBERT and ELECTRA from transformers, whatever their head and wherever they were loaded from,
    and the encoders of `trainflat.tasks`. Another model brings its own names as a `Dialect`, or a `Structure`.

    Raises:
        LookupError: If the model has no layers of any known dialect (or of the one given).
        ValueError: If its embeddings are tied to an output layer, its layers differ, or it was shrunk and a sub-layer is gone.

    Example:
        >>> from trainflat.tasks import zoo
        >>> found = structure(zoo.vit_small())
        >>> found.shapes
        {'attention': (2,), 'head': (2, 4), 'ffn': (2,), 'intermediate': (2, 128), 'hidden': (64,)}
        >>> found.attention[1].reads
        ('layers.1.attention.query', 'layers.1.attention.key', 'layers.1.attention.value')
    """
    spoken, base, names = _layers(model, [dialect] if dialect else list(DIALECTS.values()))
    shape = getattr(model, "trainflat_shape", None)
    if shape is not None and not all((*shape.heads, *shape.neurons)):
        raise ValueError(
            f"this model was shrunk, and nothing is left of some sub-layers ({shape}); gates go on before shrinking"
        )
    hidden = module(model, f"{names[0]}.{spoken.down}", nn.Linear).out_features
    embeddings, entry, entry_norm = _embeddings(
        model, f"{base}{spoken.embeddings}", f"{base}{spoken.projection}", hidden
    )
    inside = tuple(f"{name}." for name in (*names, f"{base}{spoken.embeddings}", entry))
    outside = [
        name
        for name, found in model.named_modules()
        if isinstance(found, nn.Linear) and found.in_features == hidden and not f"{name}.".startswith(inside)
    ]
    tied = {id(module(model, name).weight) for name in embeddings} & {
        id(found.weight)
        for name, found in model.named_modules()
        if isinstance(found, nn.Linear) and name not in embeddings
    }
    if tied:
        raise ValueError(
            f"the embeddings of {type(model).__name__} are also its output layer, so a hidden dimension cannot be cut; "
            f"use a model with a classifier"
        )
    return Structure(
        hidden=hidden,
        layers=names,
        attention=tuple(_attention(model, name, spoken) for name in names),
        ffn=tuple(_ffn(model, name, spoken) for name in names),
        embeddings=embeddings,
        entry=entry,
        entry_norm=entry_norm,
        readers=tuple(outside[:1]),  # what comes after reads this one's output
        last_norm=f"{base}{spoken.last_norm}" if spoken.last_norm else None,
        pre_norm=spoken.pre_norm,
    )


def layers(model: nn.Module, dialect: Dialect | None = None) -> tuple[str, ...]:
    """The names of an encoder's layers, from the first to the last; of a shrunk model, too.

    Raises:
        LookupError: As `structure`.

    Example:
        >>> from trainflat.tasks import zoo
        >>> layers(zoo.vit_small())
        ('layers.0', 'layers.1')
    """
    return _layers(model, [dialect] if dialect else list(DIALECTS.values()))[2]


def _layers(model: nn.Module, dialects: list[Dialect]) -> tuple[Dialect, str, tuple[str, ...]]:
    """The dialect that the model speaks, what precedes the encoder's names, and the names of its layers."""
    for spoken in dialects:
        roles = (spoken.query, spoken.key, spoken.value, spoken.attention_output, spoken.up, spoken.down)
        for name, found in model.named_modules():
            if not isinstance(found, nn.ModuleList) or not f".{name}".endswith(f".{spoken.layers}") or not len(found):
                continue
            within = {inner for inner, linear in found[0].named_modules() if isinstance(linear, nn.Linear)}
            if within.issuperset(roles) or hasattr(model, "trainflat_shape"):  # in a shrunk one, some may be gone
                return spoken, name.removesuffix(spoken.layers), tuple(f"{name}.{i}" for i in range(len(found)))
    raise LookupError(
        f"{type(model).__name__} has no encoder layers as in BERT, RoBERTa, DistilBERT, ELECTRA or trainflat.tasks; "
        f"name its parts in a compress.Dialect: structure(model, Dialect(layers='blocks', query='attn.q', ...))"
    )


def _embeddings(model: nn.Module, table: str, projection: str, hidden: int) -> tuple[tuple[str, ...], str, str | None]:
    """What writes the first hidden state, the module that returns it, and the norm inside."""
    if any(name == projection for name, _ in model.named_modules()):
        return (projection,), projection, None
    inside = {f"{table}.{name}": found for name, found in module(model, table).named_modules() if name}
    writers = [name for name, found in inside.items() if hidden == _width(found)]
    norms = [name for name, found in inside.items() if isinstance(found, nn.LayerNorm)]
    return tuple(writers), table, norms[0] if norms else None


def _width(found: nn.Module) -> int | None:
    if isinstance(found, nn.Embedding):
        return found.embedding_dim
    return found.out_features if isinstance(found, nn.Linear) else None


def _attention(model: nn.Module, layer: str, spoken: Dialect) -> Sublayer:
    heads = int(attrgetter(spoken.counters[0])(module(model, layer)))
    return Sublayer.of(
        model,
        reads=[f"{layer}.{name}" for name in (spoken.query, spoken.key, spoken.value)],
        writes=f"{layer}.{spoken.attention_output}",
        norm=f"{layer}.{spoken.attention_norm}",
        units=heads,
        counters={f"{layer}.{name}": attrgetter(name)(module(model, layer)) // heads for name in spoken.counters},
        absent={f"{layer}.{name}": word for name, word in spoken.no_attention.items()},
    )


def _ffn(model: nn.Module, layer: str, spoken: Dialect) -> Sublayer:
    return Sublayer.of(
        model,
        reads=[f"{layer}.{spoken.up}"],
        writes=f"{layer}.{spoken.down}",
        norm=f"{layer}.{spoken.ffn_norm}",
        absent={f"{layer}.{name}": word for name, word in spoken.no_ffn.items()},
    )
