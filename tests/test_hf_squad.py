"""SQuAD v1.1: windows over long contexts, answers cut from the text, and the official metrics."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainflat import hf, train
from trainflat.hf import answers, models, needs, questions
from trainflat.hf import windows as sliding
from trainflat.hf.squad import span_cross_entropy

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
pa = pytest.importorskip("pyarrow", reason="needs the extra: pip install 'trainflat[hf]'")
pq = pytest.importorskip("pyarrow.parquet")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{i}" for i in range(10, 100)]
VOCABULARY = [*SPECIAL, *(f"q{i}" for i in range(40)), "where", *WORDS]
LENGTH, STRIDE = 32, 8  # room for 27 context tokens beside a question of two


def save_bert(folder: Path, vocabulary: list[str]) -> str:
    """A small BERT with its tokenizer."""
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    return save_bert(tmp_path_factory.mktemp("tiny"), VOCABULARY)


def row(context: str, question: str, *texts: str, title: str = "t", starts: list[int] | None = None) -> dict:
    starts = [context.index(text) for text in texts] if starts is None else starts
    answered = {"text": list(texts), "answer_start": starts}
    return {"id": question, "title": title, "context": context, "question": question, "answers": answered}


def write(root: Path, train_rows: list[dict], validation_rows: list[dict] | None = None) -> str:
    for split, rows in {"train": train_rows, "validation": validation_rows or train_rows}.items():
        path = root / "squad" / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    return str(root)


def long_rows(articles: int = 4) -> list[dict]:
    """Contexts in which each word occurs once; answers before, on and beyond the borders of their windows."""
    rows = []
    for k, (first, count) in enumerate([(0, 1), (25, 3), (26, 1), (27, 2), (34, 1), (59, 30), (40, 9), (89, 1)]):
        words = np.random.default_rng(k // 2).permutation(WORDS)
        context = " ".join(words)
        rows.append(row(context, f"q{k} where", " ".join(words[first : first + count]), title=f"t{k % articles}"))
    return rows


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    return write(tmp_path_factory.mktemp("data"), long_rows())


def squad(checkpoint: str, root: str, **options):
    return hf.squad(**{"model": checkpoint, "data": root, "max_length": LENGTH, "stride": STRIDE, **options})


class Oracle(nn.Module):
    """Finds each question's answer by its token ids, in the windows that have all of them; elsewhere it points at [CLS]."""

    def __init__(self, rows: list[dict]):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        ids = lambda text: [VOCABULARY.index(word) for word in text.split()]
        self.expected = {ids(r["question"])[0]: ids(r["answers"]["text"][0]) for r in rows}

    def place(self, ids: list[int]) -> tuple[int, int]:
        answer = self.expected[ids[1]]
        found = [i for i in range(4, len(ids)) if ids[i : i + len(answer)] == answer]
        return (found[0], found[0] + len(answer) - 1) if found else (0, 0)

    def forward(self, input_ids, attention_mask, token_type_ids):
        z = torch.zeros(*input_ids.shape, 2) + self.weight
        for i, ids in enumerate(input_ids.tolist()):
            for side, place in enumerate(self.place(ids)):
                z[i, place, side] = 10.0
        return SimpleNamespace(start_logits=z[..., 0], end_logits=z[..., 1])


# --- the metric -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "gold", "match", "f1"),
    [
        ("Denver Broncos", ["Denver Broncos"], 1, 1),
        ("the Denver Broncos.", ["Denver  broncos"], 1, 1),  # an article, punctuation, case, blanks
        ("a an the", ["The"], 1, 0),  # nothing is left of either: the same, but no word is shared
        ("", ["the"], 1, 0),
        ("", ["cat"], 0, 0),
        ("dog", ["cat"], 0, 0),
        ("a cat and a dog", ["cat"], 0, 2 / 4),  # P = 1/3, R = 1
        ("cat cat dog", ["cat mouse cat cat"], 0, 2 * 2 / 7),  # words count as often as they occur in both
        ("cat dog", ["mouse", "the dog", "cat, dog!"], 1, 1),  # the best of several answers
        ("big cat", ["cat", "big dog with a cat"], 0, 2 / 3),  # best by F1: 2/3 of the first, 4/6 of the second
        ("24–10", ["24-10"], 0, 0),  # only ASCII punctuation goes, and without a gap: 2410
        ("$1,000", ["1000"], 1, 1),
        ("Beyoncé’s", ["BEYONCÉ’S"], 1, 1),
        ("naïve café", ["naive café"], 0, 1 / 2),  # accents count
        ("thé an", ["thé"], 1, 1),  # an article is a whole word, also beside letters beyond ASCII
        ("theater", ["ater"], 0, 0),
        ("the-end", ["end"], 0, 0),  # punctuation goes first: "theend"
        ("東京", ["東京。"], 0, 0),
        ("tab\tand\nline", ["tab and line"], 1, 1),
    ],
)
def test_the_official_metric_on_constructed_predictions(prediction, gold, match, f1):
    found = answers.score({0: prediction}, {0: gold})
    assert list(found) == ["f1", "exact_match"]
    assert found == {"f1": pytest.approx(f1), "exact_match": match}


def test_the_mean_is_over_all_questions_also_those_without_a_prediction():
    gold = {"a": ["cat"], "b": ["dog"], "c": ["mouse"], "d": ["big mouse"]}
    assert answers.score({"a": "cat", "d": "mouse"}, gold) == {
        "f1": pytest.approx((1 + 2 / 3) / 4),
        "exact_match": 0.25,
    }
    assert answers.score({}, gold) == {"f1": 0.0, "exact_match": 0.0}
    with pytest.raises(ValueError, match="prediction for 'e', which is none of the 4 questions"):
        answers.score({"e": "cat"}, gold)
    with pytest.raises(ValueError, match="no questions"):
        answers.score({}, {})


@given(st.lists(st.sampled_from("xyz"), max_size=6), st.lists(st.sampled_from("xyz"), max_size=6))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(said, expected):
    left, shared = list(expected), 0
    for word in said:  # cross out each word of the answer once
        if word in left:
            left.remove(word)
            shared += 1
    wanted = 0.0
    if shared:
        precision, recall = shared / len(said), shared / len(expected)
        wanted = 2 * precision * recall / (precision + recall)
    assert answers.f1(" ".join(said), " ".join(expected)) == pytest.approx(wanted)


# --- answers from logits --------------------------------------------------------------------------------------------


logits = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=0, max_size=12)


@given(logits, st.integers(1, 14), st.integers(1, 30))
def test_the_best_spans_are_those_of_brute_force(pairs, max_tokens, size):
    start, end = (np.array(side, dtype=np.float32) for side in zip(*pairs)) if pairs else (np.zeros(0), np.zeros(0))
    spans = [(start[i] + end[j], i, j) for i in range(len(start)) for j in range(i, min(len(start), i + max_tokens))]
    spans.sort(key=lambda span: (-span[0], span[1], span[2]))
    assert answers.spans(start, end, max_tokens=max_tokens, n_best=size) == spans[:size]


@given(st.lists(logits, min_size=1, max_size=3))
def test_the_best_answers_of_several_windows_are_those_of_brute_force(pieces):
    """Windows overlap by two tokens; each token is three characters, and a piece of text counts once, with its best score."""
    windows, best = [], {}
    for k, pairs in enumerate(pieces):
        start, end = (np.array(side, dtype=np.float64) for side in zip(*pairs)) if pairs else (np.zeros(0),) * 2
        starts = 3 * (np.arange(len(pairs)) + 10 * k)
        windows.append(answers.Window(start, end, starts, starts + 3))
        for i in range(len(pairs)):
            for j in range(i, min(len(pairs), i + 30)):
                place = int(starts[i]), int(starts[j] + 3)
                best[place] = max(best.get(place, -100.0), float(start[i] + end[j]))
    found = answers.n_best(windows)
    assert [a.score for a in found] == sorted(best.values(), reverse=True)[:20]
    assert all(best[a.start, a.end] == a.score for a in found)
    assert len({(a.start, a.end) for a in found}) == len(found)


def test_no_answer_ends_before_it_starts_or_is_longer_than_thirty_tokens():
    start, end = np.zeros(40), np.zeros(40)
    start[35], end[5] = 9, 9  # the wrong way round: worth 18
    assert answers.spans(start, end, n_best=1) == [(9.0, 0, 5)]
    start, end = np.zeros(40), np.zeros(40)
    start[0], end[29], end[30] = 9, 1, 9
    assert answers.spans(start, end, n_best=2) == [(10.0, 0, 29), (9.0, 0, 0)]


def test_a_logit_that_is_no_number_is_not_an_answer():
    with pytest.raises(ValueError, match="not a number"):
        answers.spans(np.array([0.0, np.nan]), np.zeros(2))
    assert answers.spans(np.array([-np.inf, 1.0]), np.array([3.0, 1.0])) == [(2.0, 1, 1)]


# --- windows --------------------------------------------------------------------------------------------------------


def roberta(folder: Path) -> str:
    config = transformers.RobertaConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, type_vocab_size=1,
    )  # fmt: skip
    transformers.RobertaModel(config).save_pretrained(folder)
    letters = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdegmnorstuw"])}
    transformers.RobertaTokenizer(vocab=letters, merges=[]).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_windows_are_those_of_the_tokenizer_itself(kind, checkpoint, root, tmp_path):
    """Its ``stride`` is the overlap: the room for context tokens less ours, which is how far a window moves."""
    model, extra = (checkpoint, 3) if kind == "bert" else (roberta(tmp_path / "roberta"), 4)
    rows = long_rows() if kind == "bert" else [row("a wet  tree on a  worn dam at dawn, no?", "go to", "dam")]
    task = squad(model, write(tmp_path, rows))
    windows, tokenizer, seen = task._held_out_windows, models.tokenizer(model), 0
    for number, wanted in enumerate(rows):
        room = LENGTH - extra - len(tokenizer(wanted["question"], add_special_tokens=False)["input_ids"])
        theirs = tokenizer(
            wanted["question"], wanted["context"], truncation="only_second", max_length=LENGTH, stride=room - STRIDE,
            return_overflowing_tokens=True, return_offsets_mapping=True,
        )  # fmt: skip
        ours = np.flatnonzero(windows.asked == number)
        assert len(ours) == len(theirs["input_ids"]) > 1
        for i, window in enumerate(ours):
            batch = windows.batch([window])
            assert batch.pop("attention_mask").all()
            assert {key: value[0].tolist() for key, value in batch.items()} == {key: theirs[key][i] for key in batch}
            places = [p for p, text in zip(theirs["offset_mapping"][i], theirs.sequence_ids(i)) if text == 1]
            part = slice(windows.first[window], windows.last[window])
            assert list(zip(windows.contexts.starts[part], windows.contexts.ends[part])) == places
            seen += 1
    assert seen == len(windows)


def test_windows_move_by_the_stride_and_reach_the_end_once(checkpoint, root):
    windows = squad(checkpoint, root)._train_windows  # 90 tokens each, room for 27: 0-26, 8-34, ... 64-89
    assert len(windows) == 8 * 9
    assert np.diff(windows.first[:9]).tolist() == [8] * 8
    assert (windows.last - windows.first)[:9].tolist() == [27] * 8 + [26]
    wide = squad(checkpoint, root, stride=1000)._train_windows  # a stride above the room loses no token
    assert len(wide) == 8 * 4
    assert (wide.last[:4] - wide.first[:4]).tolist() == [27, 27, 27, 9]


def test_labels_are_the_answers_tokens_where_a_window_has_them_all(checkpoint, root):
    task, oracle = squad(checkpoint, root), Oracle(long_rows())
    windows, labels = task._train_windows, task._labels
    wanted = [oracle.place(windows.batch([i])["input_ids"][0].tolist()) for i in range(len(windows))]
    assert [tuple(pair) for pair in labels.tolist()] == wanted
    answered = [sum(place != (0, 0) for place, q in zip(wanted, windows.asked) if q == number) for number in range(8)]
    assert min(answered[:5]) >= 1
    assert answered[5] == 0  # thirty tokens never fit into 27
    assert 0 < sum(place == (0, 0) for place in wanted) < len(wanted)


def test_perfect_logits_find_every_answer_that_fits_a_window(checkpoint, tmp_path):
    rows = [r for r in long_rows() if len(r["answers"]["text"][0].split()) < 28]
    task = squad(checkpoint, write(tmp_path, rows))
    assert task.evaluate(Oracle(rows)) == {"f1": 1.0, "exact_match": 1.0}
    assert task.predictions(Oracle(rows))[2] == rows[2]["answers"]["text"][0]


def test_answers_are_cut_from_the_original_text(checkpoint, tmp_path):
    """Case, accents, double blanks, a replacement character and words that the tokenizer does not know all survive."""
    contexts = {
        "w1 w2 “São  Paulo”, w3 w4.": "São  Paulo",
        "w1 \ufffd 東京 w2 w3": "東京",
        "w5\nÉtat-Major, w6": "État-Major",
        "w7 w8 w9": "w9",
    }
    rows = [row(context, f"q{i} where", text) for i, (context, text) in enumerate(contexts.items())]
    task = squad(checkpoint, write(tmp_path, rows))
    labels = task._held_out_windows.labels(
        task._held_out.context,
        np.array([s[0] for s in task._held_out.starts]),
        np.array([s[0] + len(a[0]) for s, a in zip(task._held_out.starts, task._held_out.answers)]),
    )

    class Told(Oracle):
        def place(self, ids):
            return tuple(labels[int(VOCABULARY[ids[1]][1:])])

    assert [task.predictions(Told([]))[i] for i in range(4)] == list(contexts.values())


def test_blanks_in_a_question_take_no_room_and_a_long_one_is_cut(checkpoint, tmp_path):
    context = " ".join(WORDS[:20])
    plain, blank = row(context, "q1 where", "w13"), row(context, " " * 25_000 + "q1" + " " * 600 + "where", "w13")
    long = row(context, "q2 " + "where " * 300, "w13")
    windows = squad(checkpoint, write(tmp_path, [plain, blank, long]))._held_out_windows
    assert torch.equal(windows.batch([0])["input_ids"], windows.batch([1])["input_ids"])
    assert windows.cut[windows.asked == 2].tolist() == [14] * 2  # half of the 29 that are not special
    assert windows.lengths.max() == LENGTH


def test_texts_are_tokenised_once_and_a_broken_cache_is_made_again(checkpoint, root, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINFLAT_CACHE", str(tmp_path))
    first = squad(checkpoint, root)._train_windows
    files = sorted((tmp_path / "pieces").iterdir())
    assert len(files) == 2  # questions and contexts
    task, calls = squad(checkpoint, root), []
    task._frame  # noqa: B018
    monkeypatch.setattr(type(task._tokenizer), "__call__", lambda *a, **k: calls.append(a))
    again = task._train_windows
    assert not calls
    monkeypatch.undo()
    monkeypatch.setenv("TRAINFLAT_CACHE", str(tmp_path))
    for broken in (b"", b"nonsense", files[0].read_bytes()[:-5]):
        files[0].write_bytes(broken)
        again = squad(checkpoint, root)._train_windows
        assert torch.equal(again.batch(range(len(again)))["input_ids"], first.batch(range(len(first)))["input_ids"])
    assert sorted((tmp_path / "pieces").iterdir()) == files  # no temporary files left
    monkeypatch.setenv("TRAINFLAT_CACHE", str(files[0]))  # a file, so nothing can be kept
    assert len(squad(checkpoint, root)._train_windows) == len(first)


def test_a_tokenizer_that_adds_no_token_in_front_or_is_slow_is_refused():
    class Bare:
        is_fast, model_input_names = True, []

        def __call__(self, *texts, **options):
            return Output(input_ids=[1, 2], token_type_ids=[0, 1])

    class Output(dict):
        def sequence_ids(self, index):
            return [0, 1]

    with pytest.raises(ValueError, match=r"begins with no token such as \[CLS\]"):
        sliding.frame(Bare())
    with pytest.raises(ValueError, match="does not say where its tokens stand"):
        sliding.frame(SimpleNamespace(is_fast=False))


# --- the task -------------------------------------------------------------------------------------------------------


def test_a_task_is_a_task_and_trains(checkpoint, root):
    from trainflat.testing import check_task
    from trainflat.types import Task

    task = squad(checkpoint, root, batch_size=5)
    assert isinstance(task, Task)
    check_task(task)
    assert (task.name, task.model_name, task.head) == ("squad", checkpoint, ("qa_outputs.",))
    assert task.steps_per_epoch == task.batches(seed=0).per_epoch == 15  # 72 windows
    assert task.inputs(100)["input_ids"].shape == (100, LENGTH)  # more than there are
    assert {x.shape for x in task.inputs(2, length=LENGTH).values()} == {(2, LENGTH)}
    with pytest.raises(ValueError, match=f"length must be from 1 to {LENGTH} tokens"):
        task.inputs(2, length=LENGTH + 1)
    model = task.model(seed=0)
    assert len([name for name, p in model.named_parameters() if task.prunable(name, p)]) == 12
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = [step.loss for step in train.fit(model, task.objective, task.batches(seed=0), adam, steps=40)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert list(task.evaluate(model)) == ["f1", "exact_match"]


def test_an_epoch_is_every_window_once_with_its_label(checkpoint, root):
    task = squad(checkpoint, root, batch_size=7)
    windows, stream, seen = task._train_windows, task.batches(seed=0).at(0), []
    for _step in range(task.steps_per_epoch):
        inputs, labels = next(stream)
        assert labels.dtype == torch.int64
        for ids, mask, pair in zip(inputs["input_ids"], inputs["attention_mask"], labels):
            assert not ids[~mask.bool()].any()
            seen.append((ids[mask.bool()].tolist(), pair.tolist()))
    ids = [windows.batch([i])["input_ids"][0].tolist() for i in range(len(windows))]
    assert sorted(seen) == sorted(zip(ids, task._labels.tolist(), strict=True))


def test_the_loss_is_that_of_transformers_own_models(checkpoint):
    model = models.build(checkpoint, seed=0, kind="QuestionAnswering").eval()
    inputs = {"input_ids": torch.randint(5, 50, (4, 9)), "attention_mask": torch.ones(4, 9, dtype=torch.int64)}
    labels = torch.tensor([[1, 3], [0, 0], [8, 12], [20, -4]])  # some outside of the nine positions
    theirs = model(**inputs, start_positions=labels[:, 0], end_positions=labels[:, 1]).loss
    torch.testing.assert_close(span_cross_entropy(model, (inputs, labels)), theirs)


def test_start_and_end_logits_become_one_tensor(checkpoint):
    model = models.build(checkpoint, seed=0, kind="QuestionAnswering").eval()
    inputs = {"input_ids": torch.randint(5, 50, (4, 9))}
    both, output = train.logits(model, inputs), model(**inputs)
    assert both.shape == (4, 9, 2)
    assert torch.equal(both[..., 0], output.start_logits)
    assert torch.equal(both[..., 1], output.end_logits)


def test_bert_base_has_72_prunable_matrices_since_no_pooler_is_used():
    with torch.device("meta"):
        model = transformers.BertForQuestionAnswering(transformers.BertConfig())
    names = models.prunable(model)
    assert len(names) == 72
    assert sum(model.get_parameter(name).numel() for name in names) == 85_524_480 - 768**2
    assert models.head(model) == ("qa_outputs.",)


def test_the_head_is_drawn_from_the_seed_and_the_encoder_is_the_checkpoints(checkpoint, root, tmp_path):
    task = squad(checkpoint, root)
    first, again, other = (task.model(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.qa_outputs.weight, again.qa_outputs.weight)
    assert not torch.equal(first.qa_outputs.weight, other.qa_outputs.weight)
    stored = dict(transformers.BertModel.from_pretrained(checkpoint).named_parameters())
    encoder = {name.removeprefix("bert."): p for name, p in first.named_parameters() if name.startswith("bert.")}
    assert encoder.keys() == {name for name in stored if not name.startswith("pooler.")}
    assert all(torch.equal(p, stored[name]) for name, p in encoder.items())
    classifier = models.build(checkpoint, seed=0)  # from the same files, in the same process
    assert hasattr(classifier, "classifier")
    first.save_pretrained(tmp_path / "tuned")
    shutil.copy(Path(checkpoint) / "tokenizer.json", tmp_path / "tuned")
    fresh = models.build(str(tmp_path / "tuned"), seed=1, kind="QuestionAnswering")
    assert torch.equal(fresh.qa_outputs.weight, other.qa_outputs.weight)


def test_a_model_that_has_diverged_is_not_scored(checkpoint, root):
    task = squad(checkpoint, root)
    model = task.model(seed=0)
    nn.init.constant_(model.qa_outputs.bias, float("nan"))
    with pytest.raises(ValueError, match="not finite for some questions; it has diverged"):
        task.evaluate(model)


def test_holdout_takes_whole_articles_out_of_training(checkpoint, root):
    full, task = squad(checkpoint, root), squad(checkpoint, root, holdout=0.3)
    inside, outside = set(task._train.titles), set(task._held_out.titles)
    assert not inside & outside
    assert sorted(task._train.texts + task._held_out.texts) == sorted(full._train.texts)
    assert len(task._held_out) == 2  # of 8: one of four articles
    assert squad(checkpoint, root, holdout=0.3)._held_out.texts == task._held_out.texts
    assert "scored on 30% of train" in task.note
    assert set(task.evaluate(task.model(seed=0))) == {"f1", "exact_match"}
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got 1.0"):
        squad(checkpoint, root, holdout=1.0)
    with pytest.raises(ValueError, match="of the 4 there are that leaves nothing to train on"):
        squad(checkpoint, root, holdout=0.99)


def test_a_subset_says_so(checkpoint, root):
    task = squad(checkpoint, root)
    assert (
        task.note == f"SQuAD v1.1 train 8 of 87,599 (subset), validation 8 of 10,570 (subset); {Path(checkpoint).name}"
    )
    assert hf.squad(model=Path(checkpoint), data=Path(root), max_length=LENGTH).note == task.note
    assert task.official is False


def test_places_that_are_a_guess_are_counted_in_the_note(checkpoint, tmp_path):
    root = write(tmp_path, long_rows())
    (tmp_path / "squad" / "notes").mkdir()
    notes = [{"id": "x", "answer_start_source": [kind]} for kind in ("official", "first_of_several", "only_occurrence")]
    pq.write_table(pa.Table.from_pylist(notes), tmp_path / "squad" / "notes" / "train_notes.parquet")
    assert squad(checkpoint, root).note.endswith("; 1 training answers placed at the first of several occurrences")


def test_options_outside_their_range_are_refused(checkpoint, root):
    with pytest.raises(ValueError, match="max_length 65 must be from 3 to 64"):
        squad(checkpoint, root, max_length=65)
    with pytest.raises(ValueError, match="batch size 0 is below 1"):
        squad(checkpoint, root, batch_size=0)
    with pytest.raises(ValueError, match="stride 0 is below 1: it is how many tokens"):
        squad(checkpoint, root, stride=0)
    with pytest.raises(ValueError, match="max_length 4 leaves no room"):
        squad(checkpoint, root, max_length=4).inputs()


# --- the files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [row("w1 w2 w3", "q1", "w3", starts=[5])],
            "row 0: at its answer_start 5 the context reads ' w', not the answer 'w3'",
        ),
        ([row("w1 w2 w3", "q1", "w3", starts=[-1])], "row 0: at its answer_start -1 the context reads ''"),
        ([row("é w3", "q1", "w3", starts=[3])], "starts count characters, not bytes"),
        ([row("w1", "q1", "w1"), row("w1", "q2")], r"row 1 has no answer; SQuAD v1.1 has at least one .*v2"),
        ([row("w1", "q1", "w1", "w1", starts=[0])], "row 0 has 2 answers and 1 places"),
        ([row("w1", "q1", "w1"), row("w1", "q1", "w1") | {"question": None}], "column 'question' has None, not a text"),
        ([row("w1", "q1", "w1"), row("w1", "q1", "w1") | {"context": None}], "column 'context' has None, not a text"),
        (
            [{k: v for k, v in row("w1", "q1", "w1").items() if k != "answers"}],
            "no column 'answers'; SQuAD v1.1 needs title",
        ),
        (
            [row("w1", "q1", "w1") | {"answers": "w1"}],
            "column 'answers' is string, not a struct of text and answer_start",
        ),
    ],
)
def test_rows_that_cannot_be_used_are_one_sentence(tmp_path, rows, message):
    with pytest.raises(ValueError, match=f"train.parquet.*{message}"):
        questions.read(write(tmp_path, rows, long_rows()))


def test_an_empty_or_corrupt_file_is_one_sentence(tmp_path):
    path = Path(write(tmp_path, long_rows())) / "squad" / "train.parquet"
    pq.write_table(pq.read_table(path)[:0], path)
    with pytest.raises(ValueError, match=r"train.parquet has no rows"):
        questions.read(str(tmp_path))
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"train.parquet cannot be read as Parquet: "):
        questions.read(str(tmp_path))


def test_a_missing_file_says_where_it_was_looked_for(checkpoint, root, tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINFLAT_DATA", str(tmp_path))
    for ask in (hf.squad, hf.squad.fingerprint, hf.squad.steps_per_epoch):
        with pytest.raises(
            FileNotFoundError, match=r"SQuAD v1.1 needs .*squad/train.parquet, and there is no such file"
        ):
            ask(model=checkpoint, max_length=LENGTH)
    monkeypatch.setenv("TRAINFLAT_DATA", root)
    assert len(hf.squad(model=checkpoint, max_length=LENGTH)._train) == 8


def test_without_a_folder_and_a_hub_the_error_says_which_folder_would_serve(checkpoint, monkeypatch):
    monkeypatch.delenv("TRAINFLAT_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"HF_HUB_OFFLINE forbids.*folder with squad/.*serves.*--data"):
        hf.squad.fingerprint(model=checkpoint)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(needs, "_answers", lambda endpoint: False)
    with pytest.raises(
        FileNotFoundError, match=r"SQuAD v1.1: no data folder was given, and the hub .* cannot be reached"
    ):
        hf.squad(model=checkpoint, max_length=LENGTH)


def test_the_hub_is_asked_through_datasets_at_a_pinned_revision(checkpoint, root, monkeypatch):
    import datasets

    asked = []

    def load(*args, **kwargs):
        asked.append((args, kwargs))
        files = {split: str(path) for split, path in questions.files(root).items()}
        return datasets.DatasetDict({split: datasets.Dataset.from_parquet(path) for split, path in files.items()})

    monkeypatch.delenv("TRAINFLAT_DATA", raising=False)
    monkeypatch.setattr(questions.sources, "check_hub", lambda *args, **kwargs: None)
    monkeypatch.setattr(datasets, "load_dataset", load)
    found, expected = questions.read(), questions.read(root)
    assert asked == [(("rajpurkar/squad", "plain_text"), {"revision": questions.REVISION})]
    assert found["validation"].answers == expected["validation"].answers
    assert found["train"].starts == expected["train"].starts
    assert hf.squad.fingerprint(model=checkpoint).startswith("hub:rajpurkar/squad@7b6d24c440a3 ")
    assert hf.squad.steps_per_epoch() == 5541  # 88,641 windows, 16 in a batch


def test_the_fingerprint_follows_data_and_checkpoint(checkpoint, tmp_path):
    root = write(tmp_path, long_rows())
    before = hf.squad.fingerprint(model=checkpoint, data=root)
    assert hf.squad.fingerprint(model=checkpoint, data=root, stride=64) == before  # arguments are hashed anyway
    write(tmp_path, long_rows()[:5])
    assert hf.squad.fingerprint(model=checkpoint, data=root) != before


# --- the real files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    """SQuAD as it is, cut by BERT's own tokenizer, for a model of eight hidden units."""
    folder = tmp_path_factory.mktemp("real")
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    transformers.BertModel(config).save_pretrained(folder)
    for file in (shared / "models" / "bert-base-uncased-tokenizer").iterdir():
        shutil.copy(file, folder)
    return hf.squad(model=str(folder), data=str(shared / "data"))


def test_the_real_files_have_the_counts_of_their_readme(real):
    assert "SQuAD v1.1 train 87,599, validation 10,570; " in real.note
    assert real.note.endswith("; 8,953 training answers placed at the first of several occurrences")
    assert real.official is True
    assert sum(map(len, real._held_out.answers)) == 34_726
    assert (len(set(real._train.titles)), len(set(real._held_out.titles))) == (442, 48)


def test_the_gold_answers_as_predictions_are_perfect_on_the_real_questions(real):
    gold = dict(enumerate(real._held_out.answers))
    assert len(gold) == 10_570
    assert answers.score({key: texts[0] for key, texts in gold.items()}, gold) == {"f1": 1.0, "exact_match": 1.0}


def test_perfect_logits_on_real_windows_lose_only_what_no_span_of_tokens_can_say(real):
    """An answer inside a token ("8" of "18", "gold" of "golden") or of more than 30 tokens, and nothing else."""
    rows = real._held_out.take(np.arange(0, 10_570, 5))
    assert len(real._held_out_windows) == 10_833  # of 10,570 questions
    windows = real._windows(rows)
    begin = np.array([starts[0] for starts in rows.starts])
    end = begin + np.array([len(texts[0]) for texts in rows.answers])
    labels = windows.labels(rows.context, begin, end)
    texts = {}
    for number in range(len(rows)):
        pieces = []
        for window in np.flatnonzero(windows.asked == number):
            part = slice(windows.first[window], windows.last[window])
            start, stop = np.zeros((2, part.stop - part.start))
            if labels[window].any():
                first, last = labels[window] - windows.inside[window]
                start[first], stop[last] = 10, 10
            pieces.append(answers.Window(start, stop, windows.contexts.starts[part], windows.contexts.ends[part]))
        best = answers.n_best(pieces)[0]
        texts[number] = rows.contexts[rows.context[number]][best.start : best.end]
        context, said, wanted = rows.contexts[rows.context[number]], texts[number], rows.answers[number][0]
        if said != wanted:
            widths = labels[windows.asked == number]
            longer = (widths[:, 1] - widths[:, 0]).max() >= 30
            around = context[max(0, begin[number] - 1) : end[number] + 1].strip()
            assert longer or (wanted in said and not said.isspace() and around != wanted), (said, wanted)
    found = answers.score(texts, dict(enumerate(rows.answers)))
    assert found["f1"] > 0.99
    assert found["exact_match"] > 0.99


@pytest.mark.slow
def test_the_real_training_questions_are_88641_windows_and_each_is_answered_in_one(real):
    windows, labels = real._train_windows, real._labels.numpy()
    assert len(windows) == 88_641  # of 87,599 questions
    assert real.steps_per_epoch == 5541
    assert set(windows.asked[labels.any(axis=1)]) == set(range(87_599))
    answered = np.flatnonzero(labels.any(axis=1))
    token = (windows.first + labels[:, 0] - windows.inside)[answered]
    said = np.array([starts[0] for starts in real._train.starts])[windows.asked[answered]]
    assert (windows.contexts.starts[token] <= said).all()  # no answer begins with a character that the tokenizer drops
    assert (windows.contexts.starts[token] == said).mean() > 0.99  # the others begin inside a token
