"""Short real English texts that every Python carries, classified by the area of the library that they come from."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from trainflat.tasks import stdlib
from trainflat.tasks.classification import Classification, Examples, check_options, split
from trainflat.tasks.zoo import bert_small

__all__ = ["docstrings", "word_pieces"]

POSITIONS = 48  # tokens of a text, [CLS] and [SEP] included; 99 % have at most 50
SPECIAL = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


def docstrings(*, batch_size: int = 32, holdout: float = 0.0) -> Classification:
    """Which area of Python's standard library is a docstring from? Seven classes, and a small BERT-shaped encoder.

    At most 400 texts a class (see `trainflat.tasks.stdlib.texts`), a quarter of them held out, split by class and
    the same for every seed; no text is in both parts. The WordPiece tokenizer is trained on the training texts. The
    texts differ a little between Python versions: compare results within one version.

    Args:
        batch_size: Examples in a training batch.
        holdout: Share of the training texts, in [0, 1), that is taken out of training, the same for every seed;
            `evaluate` then scores these and not the test texts. For choosing hyper-parameters.

    Raises:
        ValueError: If ``holdout`` is outside [0, 1), or too small to take a text; if ``batch_size`` is below 1.
        LookupError: If this Python was installed without the sources of its standard library.

    Example:
        >>> task = docstrings()
        >>> inputs = task.inputs(3)
        >>> sorted(inputs), task.model(seed=0)(**inputs).shape
        (['attention_mask', 'input_ids'], torch.Size([3, 7]))
    """
    check_options(batch_size=batch_size, holdout=holdout)
    training, heldout, vocabulary = _examples(holdout)
    scored = "test texts" if holdout == 0 else "texts taken from the training set"
    return Classification(
        name="docstrings",
        model_name="bert-small",
        note=f"docstrings of Python {platform.python_version()}'s standard library in {len(stdlib.AREAS)} areas: "
        f"{len(training):,} texts to train on, {len(heldout):,} {scored}.",
        build=partial(bert_small, vocabulary=vocabulary, positions=POSITIONS, classes=len(stdlib.AREAS)),
        training=training,
        heldout=heldout,
        batch_size=batch_size,
        max_length=POSITIONS,
    )


def word_pieces(texts: Iterable[str], *, size: int = 2000) -> Tokenizer:
    """A WordPiece tokenizer like uncased BERT's, trained on the texts, the same on every run.

    Devlin et al. 2019, arXiv:1810.04805; learnt by joining the most frequent pairs, as `tokenizers` does. Its trainer
    numbers the characters inside words in the order of a hash table, so that ties between pairs fall otherwise
    in every process. Here they are announced to it in sorted order, as if they were special tokens, and the vocabulary
    then goes into a fresh tokenizer in which they are not.

    Args:
        texts: What to learn the pieces from.
        size: Number of pieces, special ones included. Default: for 2,100 texts; 3,000 learnt no better.

    Example:
        >>> tokenizer = word_pieces(["Return the path.", "Return the paths."])
        >>> tokenizer.encode("Return paths").tokens
        ['[CLS]', 'return', 'paths', '[SEP]']
    """
    texts = list(texts)
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = (word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    inside = sorted({f"##{character}" for word in words for character in word[1:]})
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, splitter
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=[*SPECIAL, *inside], show_progress=False)
    learner.train_from_iterator(texts, trainer)

    vocabulary = learner.get_vocab()
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens(list(SPECIAL))
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


@lru_cache
def _examples(holdout: float) -> tuple[Examples, Examples, int]:
    """The training and the held-out examples, and the size of the vocabulary."""
    by_area = stdlib.texts()
    texts = [text for area in by_area.values() for text in area]
    labels = torch.tensor([label for label, area in enumerate(by_area.values()) for _ in area])
    training, heldout = split(labels, test=0.25, holdout=holdout, name="docstrings")
    tokenizer = word_pieces(texts[i] for i in training)
    tokenizer.enable_truncation(POSITIONS)
    examples = _padded([encoding.ids for encoding in tokenizer.encode_batch(texts)], labels)
    return examples.subset(training), examples.subset(heldout), tokenizer.get_vocab_size()


def _padded(tokens: Sequence[Sequence[int]], labels: Tensor) -> Examples:
    """Examples whose batches are padded with [PAD], number 0, to their own longest text."""
    rows = [torch.tensor(row) for row in tokens]
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def gather(indices: Sequence[int]) -> dict[str, Tensor]:
        own = lengths[list(indices)]
        longest = int(own.max())
        mask = (torch.arange(longest) < own[:, None]).long()
        return {"input_ids": ids[list(indices), :longest], "attention_mask": mask}

    return Examples(labels, gather, lengths.tolist())


def _fingerprint(*, batch_size: int = 32, holdout: float = 0.0) -> str:
    """What the options do not say: which texts this Python carries."""
    check_options(batch_size=batch_size, holdout=holdout)
    return stdlib.digest()


docstrings.fingerprint = _fingerprint  # pyright: ignore[reportFunctionMemberAccess]
docstrings.max_length = POSITIONS  # pyright: ignore[reportFunctionMemberAccess]
