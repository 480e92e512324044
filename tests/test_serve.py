"""The service of examples/serve.py, asked over HTTP by another process's clients."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from trainflat import compress, export

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="needs the extra: pip install 'trainflat[onnx]'")
for package in ("fastapi", "uvicorn"):
    pytest.importorskip(package, reason="needs the extra: pip install 'trainflat[serve]'")

SERVE = Path(__file__).parents[1] / "examples" / "serve.py"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "so", "fine", "great", "dull", "poor"]
TEXTS = ["a fine film", "so dull", "poor poor poor film " * 20, ""]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a random model whose answers differ from text to text."""
    place = tmp_path_factory.mktemp("served") / "model"
    place.mkdir()
    (place / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(place / "vocab.txt")).save_pretrained(place)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        max_position_embeddings=16,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.4,
        id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1},
    )
    transformers.BertForSequenceClassification(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def address(model):
    """The service over the exported folder, in a process of its own."""
    out = model.parent / "out"
    export.export(model, out=out, seconds=0.05)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = subprocess.Popen([sys.executable, str(SERVE), str(out), str(port)], stderr=subprocess.PIPE, text=True)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                assert running.poll() is None, running.stderr.read()
                assert time.monotonic() < deadline, "the service did not start"
                time.sleep(0.05)
        yield url
    finally:
        running.terminate()
        running.communicate(timeout=30)


def post(url, document):
    body = json.dumps(document).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_it_answers_what_torch_answers_on_its_8_bit_grid(model, address):
    status, answers = post(address, {"texts": TEXTS})
    source = export.source.open_source(model)
    inputs = source.words(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        shares = compress.dynamic_int8(source.model)(**inputs).logits.softmax(-1)
    assert status == 200
    assert len(answers) == len(TEXTS)
    for answer, share in zip(answers, shares, strict=True):
        assert answer["probability"] == pytest.approx(float(share[["bad", "good"].index(answer["label"])]), abs=0.1)


def test_a_text_gets_the_same_answer_alone_and_among_others(address):
    together = post(address, {"texts": TEXTS})[1]
    alone = [post(address, {"texts": [text]})[1][0] for text in TEXTS]
    for one, other in zip(alone, together, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=0.1)  # int8 has one grid for a batch


def test_it_says_what_it_is(address):
    with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
        assert json.load(answer)["labels"] == ["bad", "good"]


HALF = "\ud800"  # of a surrogate pair: JSON has an escape for it, Unicode no character
UNREADABLE = [
    *({"texts": []}, {"texts": [["a", "pair"]]}, {"texts": "a"}, {}, {"texts": ["a"] * 65}, {"texts": [1]}),
    *({"texts": [HALF]}, {"texts": ["a", f"b {HALF}"]}, {"texts": [["a", HALF]]}, {"texts": HALF}, {HALF: 1}),
    {"texts": [float("nan")]},
]


@pytest.mark.parametrize("document", UNREADABLE, ids=ascii)
def test_what_it_cannot_read_is_refused_and_it_lives_on(address, document):
    status, answer = post(address, document)
    assert status == 422
    assert isinstance(answer["detail"], str)
    assert post(address, {"texts": ["a film"]})[0] == 200


def test_many_ask_at_once_and_each_gets_its_own_answer(address):
    expected = {text: post(address, {"texts": [text]})[1][0] for text in TEXTS}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: post(address, {"texts": [TEXTS[i % len(TEXTS)]]}), range(80)))
    for i, (status, found) in enumerate(answers):
        assert status == 200
        assert found[0] == expected[TEXTS[i % len(TEXTS)]]


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["there", "http"], ["there", "65536"]], ids=" ".join)
def test_without_an_exported_folder_or_with_a_wrong_port_it_says_how_it_is_called(arguments, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "export.json").write_text("{}")
    command = [sys.executable, str(SERVE), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("usage: python serve.py FOLDER [PORT]")


def test_the_service_is_short_and_needs_no_torch():
    text = SERVE.read_text()
    assert len(text.splitlines()) < 60
    assert not {"torch", "transformers", "trainflat"} & {
        line.split()[1] for line in text.splitlines() if line.startswith(("import", "from"))
    }
