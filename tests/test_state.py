from __future__ import annotations

import ast
import errno
import json
import os
import random
import stat
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

import trainflat
from trainflat import compress, flat, train
from trainflat.testing.problem import equal, problem
from trainflat.train import files

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "Adam, amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
}


def in_groups(net):
    return [
        {"params": net[0].parameters(), "weight_decay": 0.1},
        {"params": [*net[1].parameters(), *net[4].parameters()]},
    ]


def trained(make=OPTIMIZERS["Adam"], steps=3):
    net, batch = problem()
    optimizer = make(in_groups(net))
    train.fit(net, train.cross_entropy, repeat(batch), optimizer, steps=steps)
    return net, optimizer


@pytest.fixture
def saved(tmp_path):
    net, optimizer = trained()
    train.save_state(tmp_path / "run.safetensors", net, optimizer, step=3)
    return tmp_path / "run.safetensors"


# exact resume


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer_comes_back_to_the_bit(make, tmp_path):
    net, optimizer = trained(make)
    train.save_state(tmp_path / "run", net, optimizer, step=3)
    other, batch = problem()
    fresh = make(in_groups(other))
    assert train.load_state(tmp_path / "run", other, fresh) == (3, {})
    assert equal(train.snapshot(net), train.snapshot(other))
    found, expected = fresh.state_dict(), optimizer.state_dict()
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for index, entries in expected["state"].items():
        assert found["state"][index].keys() == entries.keys()
        for key, value in entries.items():
            again = found["state"][index][key]
            assert type(again) is type(value)
            if isinstance(value, torch.Tensor):
                assert torch.equal(again, value)
                assert again.dtype == value.dtype
            else:
                assert again == value
    for model, its in ((net, optimizer), (other, fresh)):
        train.fit(model, train.cross_entropy, repeat(batch), its, steps=6, start=3)
    assert equal(train.snapshot(net), train.snapshot(other))


def test_the_random_streams_of_torch_numpy_and_python_go_on(tmp_path):
    def draw():
        return torch.rand(3).tolist(), np.random.normal(size=3).tolist(), [random.gauss(0, 1) for _ in range(3)]

    net, optimizer = trained()
    np.random.normal()  # Box and Muller make two: one is kept, and belongs to the state
    random.gauss(0, 1)
    train.save_state(tmp_path / "run", net, optimizer, step=3)
    expected = draw()
    for _ in range(5):
        draw()
    train.load_state(tmp_path / "run", net, optimizer)
    assert draw() == expected


def test_a_rule_with_memory_is_saved_with_the_run(tmp_path):
    class Memory:
        def __init__(self):
            self.memory = {"direction": {"0.weight": torch.zeros(2)}, "count": 0, "radii": (0.1, None)}

        def state_dict(self):
            return self.memory

        def load_state_dict(self, memory):
            self.memory = memory

    net, optimizer = trained()
    rule = Memory()
    rule.memory = {"direction": {"0.weight": torch.randn(2, 3)}, "count": 7, "radii": (0.2, None), 5: [True, "a", []]}
    train.save_state(tmp_path / "run", net, optimizer, step=3, gradient=rule)
    again = Memory()
    train.load_state(tmp_path / "run", net, optimizer, gradient=again)
    assert torch.equal(again.memory["direction"].pop("0.weight"), rule.memory["direction"].pop("0.weight"))
    assert again.memory == rule.memory
    assert type(again.memory["radii"]) is tuple


def with_memory(rule):
    net, batch = problem()
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    train.fit(net, train.cross_entropy, repeat(batch), adam, steps=3, gradient=rule)
    return net, adam


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        (
            {},
            r"the memory of the run's gradient, without which the run would not go on as it was: load it with gradient=",
        ),
        (
            {"gradient": flat.sam()},
            r"made as it was for the run; what is given remembers nothing: Rule\(radius=Given\(rho=0\.05\)\)$",
        ),
        (
            {"gradient": flat.momentum_sam()},
            "of another rule: its direction is LastGradient, and here it is Momentum",
        ),
        (
            {"gradient": flat.stale_sam(), "average": flat.swa()},
            r"no memory of the run's average, so that this one would begin",
        ),
    ],
)
def test_a_memory_that_nobody_takes_is_told_and_changes_nothing(memory, message, tmp_path):
    rule = flat.stale_sam()
    net, adam = with_memory(rule)
    train.save_state(tmp_path / "run", net, adam, step=3, gradient=rule, average=flat.last())
    other, _ = problem()
    before, fresh, stream = train.snapshot(other), torch.optim.Adam(other.parameters()), torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        train.load_state(tmp_path / "run", other, fresh, **memory)
    assert equal(before, train.snapshot(other))
    assert not fresh.state
    assert torch.equal(torch.get_rng_state(), stream)


def test_what_remembers_nothing_may_be_left_out_or_given(tmp_path):
    net, optimizer = trained()
    train.save_state(tmp_path / "run", net, optimizer, step=3, gradient=flat.sam(), average=flat.last())
    assert train.load_state(tmp_path / "run", net, optimizer) == (3, {})
    train.save_state(tmp_path / "run", net, optimizer, step=3)
    assert train.load_state(tmp_path / "run", net, optimizer, gradient=flat.plain(), average=flat.last()) == (3, {})


def test_a_header_is_kept_beside_the_run(tmp_path):
    net, optimizer = trained()
    train.save_state(tmp_path / "run", net, optimizer, step=3, losses=[0.5, 0.25], note="ä")
    assert train.load_state(tmp_path / "run", net, optimizer) == (3, {"losses": [0.5, 0.25], "note": "ä"})


def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path):
    class Odd:
        def state_dict(self):
            return {"function": print}

    net, optimizer = trained()
    with pytest.raises(TypeError, match="the state at gradient/function holds a builtin_function_or_method"):
        train.save_state(tmp_path / "run", net, optimizer, step=3, gradient=Odd())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.float32(0.5), r"np.float32\(0.5\) is a float32, and beside the tensors only what JSON has is kept"),
        ([np.int64(3)], r"np.int64\(3\) is a int64, .* of a NumPy number or array, or a tensor, take .tolist\(\)"),
        (torch.ones(1), "is a Tensor"),
    ],
)
def test_a_header_that_json_does_not_hold_is_told_and_nothing_is_written(value, message, tmp_path):
    net, optimizer = trained()
    for save in (
        lambda: train.save_state(tmp_path / "run", net, optimizer, step=3, best=value),
        lambda: train.save_weights(tmp_path / "weights", net, best=value),
    ):
        with pytest.raises(TypeError, match=message):
            save()
    assert list(tmp_path.iterdir()) == []


def test_weights_in_bfloat16_and_buffers_come_back_to_the_bit(tmp_path):
    def build():
        return nn.Sequential(nn.Conv2d(3, 4, 2).to(torch.bfloat16), nn.BatchNorm2d(4))

    net = build()
    net[1](torch.randn(2, 4, 3, 3))
    net[0].weight.data = net[0].weight.data.to(memory_format=torch.channels_last)  # and not only row by row
    train.save_weights(tmp_path / "weights", net, task="digits")
    other = build()
    assert train.load_weights(tmp_path / "weights", other) == {"task": "digits"}
    assert equal(train.snapshot(net), train.snapshot(other))
    assert other[0].weight.dtype == torch.bfloat16
    assert other[1].num_batches_tracked == 1


def test_tied_weights_are_saved_and_stay_tied(tmp_path):
    def build():
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        net[1].weight = net[0].weight
        return net

    net, other = build(), build()
    train.save_weights(tmp_path / "weights", net)
    train.load_weights(tmp_path / "weights", other)
    assert equal(train.snapshot(net), train.snapshot(other))
    assert other[0].weight is other[1].weight


# snapshot and restore


def test_a_snapshot_is_a_copy_and_restoring_keeps_the_parameters():
    net, batch = problem()
    start, objects = train.snapshot(net), list(net.parameters())
    train.fit(net, train.cross_entropy, [batch], torch.optim.SGD(net.parameters(), 0.1), steps=1)
    assert not equal(start, train.snapshot(net))
    train.restore(net, start)
    assert equal(start, train.snapshot(net))
    assert all(p is q for p, q in zip(net.parameters(), objects, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("4.bias"), r"another model: '4\.bias' and 0 more are in only one of the two"),
        (lambda s: s.update(extra=torch.ones(1)), "another model: 'extra' and 0 more"),
        (lambda s: s.update({"4.bias": torch.ones(7)}), r"4\.bias has shape \(3,\) in the model, \(7,\) in the state"),
    ],
)
def test_a_state_of_another_model_is_refused_and_changes_nothing(change, message):
    net, _ = problem()
    before, wrong = train.snapshot(net), {name: tensor + 1 for name, tensor in train.snapshot(net).items()}
    change(wrong)
    with pytest.raises(ValueError, match=message):
        train.restore(net, wrong)
    assert equal(before, train.snapshot(net))


def test_a_model_whose_weights_are_no_tensors_is_refused_and_nothing_is_written(tmp_path):
    small = compress.dynamic_int8(problem()[0])
    for use in (
        lambda: train.snapshot(small),
        lambda: train.restore(small, {}),
        lambda: train.restore(small, small.state_dict()),
        lambda: train.save_weights(tmp_path / "weights", small),
    ):
        with pytest.raises(
            TypeError, match=r"this Sequential keeps a \w+ at '0\._packed_params\.\w+', where a tensor belongs"
        ):
            use()
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_model_is_refused_and_changes_nothing(saved):
    net = nn.Linear(2, 2)
    before, optimizer = train.snapshot(net), torch.optim.Adam(net.parameters())
    stream = torch.get_rng_state()
    with pytest.raises(ValueError, match="this state is of another model"):
        train.load_state(saved, net, optimizer)
    assert equal(before, train.snapshot(net))
    assert not optimizer.state
    assert torch.equal(torch.get_rng_state(), stream)


def test_weights_alone_are_no_run(tmp_path):
    net, optimizer = trained()
    train.save_weights(tmp_path / "weights", net)
    before = train.snapshot(net)
    with pytest.raises(ValueError, match="another model"):
        train.load_state(tmp_path / "weights", net, optimizer)
    assert equal(before, train.snapshot(net))


# damaged files


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "random":
        path.write_bytes(random.Random(0).randbytes(len(whole)))
    elif how == "text":
        path.write_text('{"step": 3}')
    elif how == "foreign":
        path.unlink()
        save_file({"model/0.weight": torch.ones(2)}, path, {"format": "pt"})
    elif how == "foreign header":
        path.unlink()
        save_file({"model/0.weight": torch.ones(2)}, path, {"trainflat": "{not json"})
    elif how == "pickle":
        path.write_bytes(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94K\x01a.")
    else:
        path.write_bytes(whole[: int(len(whole) * float(how))])


@pytest.mark.parametrize(
    "how", ["empty", "random", "text", "foreign", "foreign header", "pickle", "0.001", "0.5", "0.999"]
)
def test_a_damaged_file_is_one_sentence_and_changes_nothing(saved, how):
    damage(saved, how)
    net, optimizer = trained()
    before, stream = train.snapshot(net), torch.get_rng_state()
    with pytest.raises(ValueError, match="is damaged or was not written by trainflat") as caught:
        train.load_state(saved, net, optimizer)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert equal(before, train.snapshot(net))
    assert torch.equal(torch.get_rng_state(), stream)


@pytest.mark.parametrize("load", [lambda path, net: train.load_weights(path, net), lambda path, net: files.read(path)])
def test_a_file_that_is_absent_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent"):
        load(tmp_path / "absent", problem()[0])
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(tmp_path, problem()[0])  # a folder


# whole or not at all


def fail(error):
    def save_file(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise error

    return save_file


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["OSError", "SafetensorError"],
)
def test_a_full_disk_is_an_oserror_and_the_old_file_stays_whole(saved, monkeypatch, error):
    old = saved.read_bytes()
    net, optimizer = trained()
    monkeypatch.setattr(files, "save_file", fail(error))
    with pytest.raises(OSError, match="No space left on device"):
        train.save_state(saved, net, optimizer, step=4)
    assert saved.read_bytes() == old
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=["interrupt", "memory"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(saved, monkeypatch, error):
    old = saved.read_bytes()
    net, optimizer = trained()
    monkeypatch.setattr(files, "save_file", fail(error))
    with pytest.raises(type(error)):
        train.save_state(saved, net, optimizer, step=4)
    assert saved.read_bytes() == old
    assert list(saved.parent.iterdir()) == [saved]


def test_the_file_appears_by_renaming_after_it_is_synced(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(files.os, "fsync", lambda number: events.append(("synced", (tmp_path / "weights").exists())))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: events.append(("renamed", self.name)) or replace(self, to))
    train.save_weights(tmp_path / "weights", nn.Linear(2, 2))
    assert events == [("synced", False), ("renamed", "weights.part")]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_file_has_the_mode_that_the_umask_gives(umask, mode, tmp_path):
    (tmp_path / "weights.part").touch(0o400)  # left by a process that was killed
    before = os.umask(umask)
    try:
        train.save_weights(tmp_path / "weights", nn.Linear(2, 2))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights").stat().st_mode) == mode


def test_a_folder_that_is_absent_is_an_oserror(tmp_path):
    with pytest.raises(OSError, match="absent"):
        train.save_weights(tmp_path / "absent" / "weights", nn.Linear(2, 2))


def test_a_state_is_plain_safetensors_with_a_json_header(saved):
    raw = saved.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert json.loads(header["__metadata__"]["trainflat"])["step"] == 3
    assert {"model/0.weight", "optimizer/state/0/exp_avg", "random/torch", "random/numpy"} <= header.keys()


# no pickle


def test_no_pickle_is_ever_read_or_written():
    forbidden, found, files = (
        {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"},
        [],
        0,
    )
    for path in sorted(Path(trainflat.__file__).parent.rglob("*.py")):
        files += 1
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
                names += [f"torch.{alias.name}" for alias in node.names if node.module == "torch"]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = [f"{node.value.id}.{node.attr}"]
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                names = (
                    ["allow_pickle"] if not (isinstance(node.value, ast.Constant) and node.value.value is False) else []
                )
            bad = forbidden | {"torch.load", "torch.save", "torch.jit", "np.load", "allow_pickle", "pd.read_pickle"}
            found += [f"{path.name}:{getattr(node, 'lineno', '?')} {name}" for name in names if name in bad]
    assert found == []
    assert files >= 20
