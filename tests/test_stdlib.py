"""The texts that Python carries: short, different, in one area each; and a tokenizer that is the same every time."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from trainflat import tasks
from trainflat.tasks import stdlib
from trainflat.tasks.docstrings import word_pieces


def _source(folder: Path, name: str, *, docstrings: int) -> None:
    """A module with that many docstrings, all different."""
    texts = [f"Text number {i} of the module {name}." for i in range(docstrings)]
    (folder / f"{name}.py").write_text("\n".join(f'def f{i}():\n    "{text}"\n' for i, text in enumerate(texts)))


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of our own: one module for each area."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    for modules in stdlib.AREAS.values():
        _source(tmp_path, modules.split()[0], docstrings=stdlib.LEAST)
    return tmp_path


def test_texts_are_short_and_different_and_balanced():
    found = stdlib.texts()
    everything = [text.lower() for area in found.values() for text in area]
    assert list(found) == list(stdlib.AREAS)
    assert all(stdlib.LEAST <= len(area) <= stdlib.MOST for area in found.values())
    assert len(set(everything)) == len(everything) > 1500
    assert all(5 <= len(text.split()) <= 32 for text in everything)
    assert "Concrete date/time and related types." not in found["networking"]


@pytest.fixture
def parsed(monkeypatch, tmp_path):
    """The readings of the sources themselves; the cache is empty at first, and nothing is remembered in memory."""
    monkeypatch.setenv("TRAINFLAT_CACHE", str(tmp_path / "cache"))
    readings, parse = [], stdlib._parsed
    monkeypatch.setattr(stdlib, "_parsed", lambda root: (readings.append(root), parse(root))[1])
    monkeypatch.setattr(stdlib, "_read", stdlib._read.__wrapped__)
    return readings


def test_what_was_read_is_found_again_and_is_the_same(parsed):
    first, again = stdlib.functions(), stdlib.functions()
    assert first == again
    assert len(parsed) == 1


@pytest.mark.parametrize("damage", ["", "[1]", '{"a": 1}', '[["numbers", [["a text", [[1]]]]]]', "\xff"])
def test_a_damaged_cache_is_read_anew(parsed, library, tmp_path, damage):
    first = stdlib.texts()
    (kept,) = (tmp_path / "cache" / "docstrings").iterdir()
    kept.write_bytes(damage.encode("latin-1"))
    assert stdlib.texts() == first
    assert stdlib.texts() == first
    assert len(parsed) == 2


def test_a_source_that_changes_is_read_anew(parsed, library):
    first = stdlib.texts()
    _source(library, stdlib.AREAS["graphics"].split()[0], docstrings=stdlib.LEAST + 1)
    assert len(stdlib.texts()["graphics"]) == len(first["graphics"]) + 1


@pytest.mark.parametrize("cache", ["/dev/null/nowhere", "~nobody-of-that-name/cache"])
def test_where_nothing_can_be_kept_it_is_read_all_the_same(parsed, library, monkeypatch, cache):
    monkeypatch.setenv("TRAINFLAT_CACHE", cache)
    assert stdlib.texts() == stdlib.texts()
    assert len(parsed) == 2


def test_no_module_is_in_two_areas():
    modules = [module for modules in stdlib.AREAS.values() for module in modules.split()]
    assert len(modules) == len(set(modules)) > 100


def test_every_definition_is_read_at_any_depth(library):
    source = '''
"""The text of a module is one."""
if True:
    try:
        class Outer:
            """The text of a class is another."""
            async def method(self):
                """The text of an inner coroutine,
                on two lines.

                And a second paragraph."""
    except ImportError:
        def other():
            """The text after an exception counts."""
def short(): "Too short."
'''
    (library / "ssl.py").write_text(source)
    found = set(stdlib.texts()["networking"])
    assert {
        "The text of a module is one.",
        "The text of a class is another.",
        "The text of an inner coroutine, on two lines.",
        "The text after an exception counts.",
    } < found
    assert len(found) == stdlib.LEAST + 4


def test_text_that_occurs_in_two_areas_is_in_neither(library):
    for module in ("ssl", "queue"):
        (library / f"{module}.py").write_text('"""One text that says the same twice."""')
    assert not any("twice" in text for area in stdlib.texts().values() for text in area)


def test_tests_inside_packages_are_not_read(library):
    (library / "tkinter" / "test").mkdir(parents=True)
    (library / "tkinter" / "test" / "case.py").write_text('"""Checks that the widget is drawn."""')
    assert not any("drawn" in text for text in stdlib.texts()["graphics"])


@pytest.mark.parametrize("left", ["nothing", "only .pyc", "a part"])
def test_python_without_sources_is_named(tmp_path, monkeypatch, left):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    if left == "only .pyc":
        (tmp_path / "queue.pyc").write_bytes(b"")
    if left == "a part":
        _source(tmp_path, "queue", docstrings=stdlib.LEAST)
    with pytest.raises(LookupError, match=r"without its sources .* use a Python with"):
        stdlib.texts()
    if left != "a part":
        with pytest.raises(LookupError, match=r"without its sources"):
            tasks.docstrings.fingerprint()


def test_fingerprint_says_which_texts_there_are(library):
    before = stdlib.digest()
    assert stdlib.digest() == before == tasks.docstrings.fingerprint()
    stdlib._digest.cache_clear()
    _source(library, "queue", docstrings=3)
    assert stdlib.digest() != before


def test_tokenizer_gives_the_words_back():
    texts = [text for area in stdlib.texts().values() for text in area[:50]]
    tokenizer = word_pieces(texts)
    tokens = tokenizer.encode("Return the encoding of the file.").tokens
    assert tokens[0] == "[CLS]"
    assert tokens[-1] == "[SEP]"
    assert " ".join(tokens[1:-1]).replace(" ##", "") == "return the encoding of the file ."
    assert [tokenizer.token_to_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [0, 1, 2, 3]
    assert sorted(tokenizer.get_vocab().values()) == list(range(tokenizer.get_vocab_size()))
    assert not any("[UNK]" in tokenizer.encode(text).tokens for text in texts)


def test_tokenizer_is_the_same_every_time():
    texts = [text for area in stdlib.texts().values() for text in area[:30]]
    first, *others = [word_pieces(texts, size=500).get_vocab() for _ in range(4)]  # of the plain trainer, all differ
    assert len(first) == 500
    assert others == [first] * 3
