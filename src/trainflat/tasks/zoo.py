"""Small transformer encoders with BERT's shape and names, in which every prunable matrix is a plain ``nn.Linear``."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Attention", "Encoder", "Layer", "Patches", "Words", "bert_small", "in_encoder", "vit_small"]


class Attention(nn.Module):
    """Multi-head self-attention: softmax(Q K' / sqrt(d)) V, then an output matrix.

    Vaswani et al. 2017, eq. (1), arXiv:1706.03762. Query, key, value and output are matrices of their own, as in BERT,
    so that masks, scores and quantizers see each. Unlike BERT there is no dropout on the attention probabilities: on a
    CPU it would cost more than the attention itself.

    Raises:
        ValueError: If the hidden size does not divide into the heads.
    """

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden size {hidden} does not divide into {heads} heads")
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Bool[Tensor, "batch 1 1 seq"] | None = None
    ) -> Float[Tensor, "batch seq hidden"]:
        """Attend where ``mask`` is True, or everywhere."""
        query, key, value = (
            matrix(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for matrix in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """One encoder block, x + attention(norm(x)) and then x + ffn(norm(x)).

    Pre-LN, Xiong et al. 2020, arXiv:2002.04745, figure 1 (b): unlike BERT's post-LN it trains from scratch at a large
    learning rate without warm-up.
    """

    def __init__(self, hidden: int, heads: int, ffn: int, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden)
        self.attention = Attention(hidden, heads)
        self.ffn_norm = nn.LayerNorm(hidden)
        self.intermediate = nn.Linear(hidden, ffn)
        self.output = nn.Linear(ffn, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, hidden: Float[Tensor, "batch seq hidden"], mask: Bool[Tensor, "batch 1 1 seq"] | None = None
    ) -> Float[Tensor, "batch seq hidden"]:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), mask))
        inner = functional.gelu(self.intermediate(self.ffn_norm(hidden)))
        return hidden + self.dropout(self.output(inner))


class Patches(nn.Module):
    """Square patches of grey images as a sequence: a linear map of each patch's pixels plus a learnt position.

    Dosovitskiy et al. 2021, eq. (1), arXiv:2010.11929, without the class token: the mean over patches is pooled.
    """

    def __init__(self, side: int, patch: int, hidden: int, dropout: float):
        super().__init__()
        if side % patch:
            raise ValueError(f"an image of {side} x {side} pixels does not divide into patches of {patch} x {patch}")
        self.patch = patch
        self.projection = nn.Linear(patch * patch, hidden)
        self.position = nn.Embedding((side // patch) ** 2, hidden)
        nn.init.normal_(self.position.weight, std=0.5)  # near the projection's, or it takes epochs to tell places apart
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Float[Tensor, "batch side side"]) -> Float[Tensor, "batch seq hidden"]:
        """Patches row by row."""
        grid = images.unflatten(2, (-1, self.patch)).unflatten(1, (-1, self.patch))
        pixels = grid.transpose(2, 3).flatten(3).flatten(1, 2)
        return self.dropout(self.projection(pixels) + self.position.weight)


class Words(nn.Module):
    """Token numbers as a sequence: a learnt vector for each word piece plus one for its position, normalised."""

    def __init__(self, vocabulary: int, positions: int, hidden: int, dropout: float):
        super().__init__()
        self.word = nn.Embedding(vocabulary, hidden)
        self.position = nn.Embedding(positions, hidden)
        for embedding in (self.word, self.position):
            nn.init.normal_(embedding.weight, std=0.02)  # BERT's; from N(0, 1) words would hardly move in a few epochs
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq hidden"]:
        tokens, positions = input_ids.shape[1], self.position.num_embeddings
        if tokens > positions:
            raise ValueError(f"a text of {tokens} tokens is too long for {positions} positions; truncate it")
        return self.dropout(self.norm(self.word(input_ids) + self.position.weight[:tokens]))


class _Pooler(nn.Module):
    """tanh(W x + b), as BERT's."""

    def __init__(self, hidden: int):
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)

    def forward(self, hidden: Float[Tensor, "batch inp"]) -> Float[Tensor, "batch out"]:
        return torch.tanh(self.dense(hidden))


class Encoder(nn.Module):
    """Embeddings, blocks, pooler, classifier: ``layers.0.attention.query.weight``, ..., ``classifier.weight``.

    Unlike BERT's, the pooler reads the mean over the tokens that are no padding, and matrices start uniform after Glorot
    & Bengio 2010 instead of from N(0, 0.02^2): from scratch, in few steps, both learn several times faster.

    Args:
        embeddings: From the model's input to ``batch seq hidden``.
        classes: Number of logits.
        hidden, heads, layers, ffn: Shape of the encoder.
        dropout: Share of activations dropped after embeddings, attention and ffn, and before the classifier.

    Example:
        >>> model = Encoder(Patches(8, 4, 16, 0.1), classes=10, hidden=16, heads=2, layers=1, ffn=32)
        >>> model(torch.zeros(3, 8, 8)).shape
        torch.Size([3, 10])
        >>> sum(p.numel() for name, p in model.named_parameters() if in_encoder(name, p))  # 4 h^2 + 2 h f, and h^2
        2304
    """

    def __init__(
        self,
        embeddings: nn.Module,
        *,
        classes: int,
        hidden: int,
        heads: int,
        layers: int,
        ffn: int,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.embeddings = embeddings
        self.layers = nn.ModuleList(Layer(hidden, heads, ffn, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.pooler = _Pooler(hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"] | Float[Tensor, "batch side side"],
        attention_mask: Int[Tensor, "batch seq"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """The logits of tokens (mask: 1 text, 0 padding) or of images."""
        hidden = self.embeddings(input_ids)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        hidden = self.norm(hidden)
        if attention_mask is None:
            mean = hidden.mean(1)
        else:
            present = attention_mask[:, :, None].to(hidden.dtype)
            mean = (hidden * present).sum(1) / present.sum(1)
        return self.classifier(self.dropout(self.pooler(mean)))


def in_encoder(name: str, parameter: nn.Parameter) -> bool:
    """The prunable set of these models: the blocks' and the pooler's matrices; no embedding, bias, norm or classifier.

    The set of Chen et al. 2020, arXiv:2007.12223, for BERT: 6 matrices a layer, and the pooler.
    """
    return parameter.ndim == 2 and name.startswith(("layers.", "pooler."))


def vit_small(*, side: int = 8, patch: int = 4, classes: int = 10) -> Encoder:
    """A vision transformer for small grey images: 2 layers, hidden 64, 4 heads, 69,632 prunable weights.

    Four patches of 4 x 4 pixels show the 8 x 8 digits as well as sixteen of 2 x 2 do, in half the time.
    """
    embeddings = Patches(side, patch, 64, dropout=0.1)
    return Encoder(embeddings, classes=classes, hidden=64, heads=4, layers=2, ffn=128)


def bert_small(*, vocabulary: int, positions: int, classes: int) -> Encoder:
    """A BERT-shaped text encoder: 2 layers, hidden 64, 4 heads, ffn four times hidden, 102,400 prunable weights."""
    embeddings = Words(vocabulary, positions, 64, dropout=0.1)
    return Encoder(embeddings, classes=classes, hidden=64, heads=4, layers=2, ffn=256)
