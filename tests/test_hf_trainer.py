"""FlatTrainer: the Trainer without a rule, our loop with one; right under accumulation, clipping, bf16 and resume."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from trainflat import flat, train

transformers = pytest.importorskip("transformers", reason="needs the extra: pip install 'trainflat[hf]'")
pytest.importorskip("accelerate", reason="needs the extra: pip install 'trainflat[hf]'")

STEPS, SIZE, LENGTH, CLASSES, WORDS = 4, 4, 7, 3, 40


def bert(dropout: float = 0.0) -> Any:
    torch.manual_seed(1)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=WORDS,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=16,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            num_labels=CLASSES,
        )
    )


def rows(size: int) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(2)
    return [
        {
            "input_ids": torch.randint(0, WORDS, (LENGTH,), generator=draw),
            "labels": int(torch.randint(0, CLASSES, (), generator=draw)),
        }
        for _ in range(size)
    ]


def arguments(folder: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "max_steps": STEPS,
        "per_device_train_batch_size": SIZE,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
        "lr_scheduler_type": "linear",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return transformers.TrainingArguments(output_dir=str(folder), **{**settings, **options})


def run(
    cls: type, model: Any, folder: Path, *, optimizer: str = "SGD", data: int = 64, resume: Any = None, **options: Any
) -> Any:
    extra = {name: options.pop(name) for name in ("gradient", "compute_loss_func") if name in options}
    chosen = getattr(torch.optim, optimizer)(model.parameters(), lr=0.05 if optimizer == "SGD" else 1e-3)
    trainer = cls(model, arguments(folder, **options), train_dataset=rows(data), optimizers=(chosen, None), **extra)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def close(a: Any, b: Any, **tolerance: float) -> None:
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.fixture(scope="module")
def FlatTrainer() -> type:
    from trainflat import hf

    return hf.FlatTrainer


@pytest.mark.parametrize("gradient", [None, flat.plain(), flat.sam(rho=0.0)], ids=["none", "plain", "rho 0"])
def test_without_a_rule_it_is_the_trainer_bit_for_bit(FlatTrainer, tmp_path, gradient):
    ours, theirs = bert(dropout=0.1), bert(dropout=0.1)
    a = run(FlatTrainer, ours, tmp_path, optimizer="AdamW", gradient=gradient, max_grad_norm=0.5)
    after = torch.get_rng_state()
    b = run(transformers.Trainer, theirs, tmp_path, optimizer="AdamW", max_grad_norm=0.5)
    assert same(ours, theirs)
    assert losses(a) == losses(b)
    assert len(losses(a)) == STEPS
    assert torch.equal(torch.get_rng_state(), after)


RULES = {
    "plain": lambda: None,
    "sam": partial(flat.sam, rho=0.05),
    "asam": partial(flat.asam, rho=0.5),
    "stale_cram": partial(flat.stale_cram, rho=0.5, dense="head", sparse_grad=True),  # it remembers, and so one each
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(
    ("optimizer", "accumulate", "clip", "precision"),
    [("SGD", 1, None, "fp32"), ("AdamW", 4, 0.1, "fp32"), ("SGD", 2, 0.1, "bf16")],
)
def test_it_equals_our_loop_on_the_same_batches(FlatTrainer, tmp_path, rule, optimizer, accumulate, clip, precision):
    ours, theirs = bert(), bert()
    trainer = run(
        FlatTrainer,
        theirs,
        tmp_path,
        gradient=rule(),
        optimizer=optimizer,
        gradient_accumulation_steps=accumulate,
        max_grad_norm=clip or 0.0,
        bf16=precision == "bf16",
    )
    data = rows(64)
    batches = [
        (
            {"input_ids": torch.stack([row["input_ids"] for row in part])},
            torch.tensor([row["labels"] for row in part]),
        )
        for part in (data[i : i + SIZE] for i in range(0, 64, SIZE))
    ]
    steps = train.fit(
        ours,
        train.cross_entropy,
        batches,
        getattr(torch.optim, optimizer)(ours.parameters(), lr=0.05 if optimizer == "SGD" else 1e-3),
        steps=STEPS,
        gradient=rule(),
        lr=train.linear(1.0, 0.0),
        accumulate=accumulate,
        clip=clip,
        precision=precision,
    )
    assert [step.loss for step in steps] == pytest.approx(losses(trainer), rel=1e-5)
    # The same sums in another order: the Trainer clips in another function and computes the schedule as (T - i) / T.
    close(ours, theirs, rtol=1e-5, atol=1e-5 if optimizer == "AdamW" else 1e-6)
    assert not same(ours, bert())


def of_a_mean(outputs, labels, num_items_in_batch=None):
    """A loss of one's own that leaves the number of items aside."""
    return torch.nn.functional.cross_entropy(outputs.logits, labels)


def of_items(outputs, labels, num_items_in_batch=None):
    """One that is divided by it, as transformers asks."""
    return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


@pytest.mark.parametrize("loss", [None, of_a_mean, of_items])
@pytest.mark.parametrize("gradient", [None, flat.sam(rho=0.1)], ids=["plain", "sam"])
def test_four_micro_batches_equal_the_large_batch(FlatTrainer, tmp_path, gradient, loss):
    small, large = bert(), bert()
    options = {"gradient": gradient, "compute_loss_func": loss}
    a = run(FlatTrainer, small, tmp_path, gradient_accumulation_steps=4, **options)
    b = run(FlatTrainer, large, tmp_path, per_device_train_batch_size=4 * SIZE, **options)
    close(small, large, rtol=1e-5, atol=1e-6)
    assert losses(a) == pytest.approx(losses(b), rel=1e-5)


class Scaled(torch.nn.Module):
    """A model that divides its summed loss by the number of items in the whole step, as causal language models do."""

    def __init__(self):
        super().__init__()
        self.inner = bert()
        self.config = self.inner.config

    def forward(self, input_ids, labels=None, num_items_in_batch=None, **kwargs):
        logits = self.inner(input_ids).logits
        total = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        return {"loss": total / (len(labels) if num_items_in_batch is None else num_items_in_batch), "logits": logits}


def test_a_loss_per_item_stays_exact_with_unequal_micro_batches(FlatTrainer, tmp_path):
    data = 4 * SIZE - 3  # the last micro-batch has one row
    small, large = Scaled(), Scaled()
    options = {"gradient": flat.sam(rho=0.1), "data": data, "max_steps": 2, "save_strategy": "no"}
    a = run(FlatTrainer, small, tmp_path, gradient_accumulation_steps=4, **options)
    b = run(FlatTrainer, large, tmp_path, per_device_train_batch_size=4 * SIZE, **options)
    assert a.model_accepts_loss_kwargs
    close(small, large, rtol=1e-5, atol=1e-6)
    assert losses(a) == pytest.approx(losses(b), rel=1e-5)


def test_an_incomplete_last_step_of_an_epoch_is_a_step(FlatTrainer, tmp_path):
    model = bert()
    trainer = run(FlatTrainer, model, tmp_path, gradient=flat.sam(), data=5 * SIZE, gradient_accumulation_steps=4)
    assert trainer.state.global_step == STEPS
    assert trainer.state.epoch == pytest.approx(2.0)  # two steps an epoch: four micro-batches and one
    assert all(0.5 < loss < 2 * math.log(CLASSES) for loss in losses(trainer))


class Recorder:
    """A rule that writes down what it saw."""

    def __init__(self):
        self.calls: list[tuple[float, int]] = []

    def __call__(self, closure, params, t):
        self.calls.append((t, len(closure.micro)))
        assert all(p.grad is None for p in params.values())
        return closure()


def test_the_rule_sees_all_micro_batches_of_a_step_and_the_progress(FlatTrainer, tmp_path):
    rule = Recorder()
    run(FlatTrainer, bert(), tmp_path, gradient=rule, gradient_accumulation_steps=2)
    assert rule.calls == [(0.0, 2), (0.25, 2), (0.5, 2), (0.75, 2)]


def test_a_part_of_the_closure_is_the_first_part_of_every_micro_batch(FlatTrainer, tmp_path):
    seen = []

    def rule(closure, params, t):
        half = closure.part(0.5)
        seen.append([len(inputs["labels"]) for inputs in half.micro])
        half()
        for p in params.values():
            p.grad = None
        return closure()

    trainer = run(FlatTrainer, bert(), tmp_path, gradient=rule, gradient_accumulation_steps=2)
    assert seen == [[2, 2]] * STEPS
    assert trainer.state.global_step == STEPS


@pytest.mark.parametrize(
    ("model", "loss"),
    [(bert, None), (Scaled, None), (bert, of_a_mean), (bert, of_items)],
    ids=["mean", "per item", "own mean", "own per item"],
)
@pytest.mark.parametrize(("count", "accumulate"), [(2, 1), (3, 2), (100, 4)])
def test_losses_and_gradients_of_the_pieces_add_up_to_the_wholes(FlatTrainer, tmp_path, model, loss, count, accumulate):
    """Also of the last step, whose second micro-batch has one row."""
    sizes = []

    def rule(closure, params, t):
        whole = [closure(), *(p.grad for p in params.values() if p.grad is not None)]
        for p in params.values():
            p.grad = None
        pieces = closure.pieces(count)
        losses = [piece() for piece in pieces]
        sizes.append([[len(inputs["labels"]) for inputs in piece.micro] for piece in pieces])
        found = [torch.stack(losses).sum(), *(p.grad for p in params.values() if p.grad is not None)]
        for one, other in zip(whole, found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert closure.trainer.current_gradient_accumulation_steps == len(closure.micro)
        return whole[0]

    data = SIZE * accumulate + SIZE + 1
    options = {"gradient_accumulation_steps": accumulate, "compute_loss_func": loss}
    run(FlatTrainer, model(), tmp_path, gradient=rule, data=data, max_steps=2, **options)
    assert [len(pieces) for pieces in sizes] == [min(count, SIZE)] * 2
    assert [sum(map(sum, pieces)) for pieces in sizes] == [SIZE * accumulate, SIZE + (accumulate > 1)]


def test_m_sam_equals_our_loops(FlatTrainer, tmp_path):
    ours, theirs = bert(), bert()
    run(FlatTrainer, theirs, tmp_path, gradient=flat.m_sam(0.1, pieces=2), lr_scheduler_type="constant")
    data = rows(64)
    batches = [
        ({"input_ids": torch.stack([row["input_ids"] for row in part])}, torch.tensor([row["labels"] for row in part]))
        for part in (data[i : i + SIZE] for i in range(0, 64, SIZE))
    ]
    sgd = torch.optim.SGD(ours.parameters(), lr=0.05)
    train.fit(ours, train.cross_entropy, batches, sgd, steps=STEPS, gradient=flat.m_sam(0.1, pieces=2))
    close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not same(ours, bert())


def test_a_part_of_a_loss_per_item_is_a_mean_of_its_own(FlatTrainer, tmp_path):
    def rule(closure, params, t):
        half = closure.part(0.5)
        assert int(half.items) * 2 == int(closure.items) == 2 * SIZE
        assert 0.5 < float(half()) < 2 * math.log(CLASSES)
        for p in params.values():
            p.grad = None
        return closure()

    run(FlatTrainer, Scaled(), tmp_path, gradient=rule, gradient_accumulation_steps=2)


def test_a_rule_that_tells_examples_apart_says_that_it_cannot(FlatTrainer, tmp_path):
    with pytest.raises(TypeError, match=r"needs closure\.losses\(weights\).*this closure does not have"):
        run(FlatTrainer, bert(), tmp_path, gradient=flat.esam())


class Remembers:
    """A rule with memory: half of the last gradient is added."""

    def __init__(self):
        self.last: dict[str, torch.Tensor] = {}

    def __call__(self, closure, params, t):
        loss = closure()
        for name, p in params.items():
            if p.grad is not None:
                if name in self.last:
                    p.grad.add_(self.last[name], alpha=0.5)
                self.last[name] = p.grad.clone()
        return loss

    def state_dict(self):
        return {"last": self.last, "kind": "remembers"}

    def load_state_dict(self, state):
        assert state["kind"] == "remembers"
        self.last = dict(state["last"])


@pytest.mark.parametrize("rule", [lambda: flat.sam(rho=0.05), Remembers], ids=["sam", "with memory"])
def test_resuming_equals_never_stopping(FlatTrainer, tmp_path, rule):
    options = {"optimizer": "AdamW", "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2}
    whole = bert(dropout=0.1)
    run(FlatTrainer, whole, tmp_path / "whole", gradient=rule(), **options)
    resumed = bert(dropout=0.1)
    run(
        FlatTrainer,
        resumed,
        tmp_path / "again",
        gradient=rule(),
        resume=str(tmp_path / "whole" / "checkpoint-2"),
        **options,
    )
    assert same(resumed, whole)
    saved = tmp_path / "whole" / "checkpoint-2" / "gradient.safetensors"
    assert saved.is_file() == hasattr(rule(), "state_dict")


def test_a_checkpoint_without_the_rules_memory_is_refused(FlatTrainer, tmp_path):
    run(FlatTrainer, bert(), tmp_path, gradient=flat.sam(), save_strategy="steps", save_steps=2)
    with pytest.raises(FileNotFoundError, match=r"gradient\.safetensors.*that has no memory, or save with this one"):
        run(FlatTrainer, bert(), tmp_path, gradient=Remembers(), resume=str(tmp_path / "checkpoint-2"))


def test_a_checkpoint_with_a_memory_is_not_resumed_without_one(FlatTrainer, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    run(FlatTrainer, bert(), tmp_path, gradient=Remembers(), **options)
    with pytest.raises(ValueError, match=r"holds the memory of the run's gradient.*the rule that it was made with"):
        run(FlatTrainer, bert(), tmp_path, gradient=flat.sam(), resume=str(tmp_path / "checkpoint-2"), **options)


def test_a_checkpoint_that_is_written_again_has_no_other_runs_memory(FlatTrainer, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2}
    run(FlatTrainer, bert(), tmp_path, gradient=Remembers(), **options)
    run(FlatTrainer, bert(), tmp_path, gradient=flat.sam(), **options)
    assert not list(tmp_path.glob("checkpoint-*/gradient.safetensors"))
    run(FlatTrainer, bert(), tmp_path, gradient=flat.sam(), resume=str(tmp_path / "checkpoint-2"), **options)


@pytest.mark.parametrize("rule", [flat.sam, flat.looksam, Remembers])
def test_a_model_that_is_made_anew_is_trained_by_a_rule_that_begins_anew(FlatTrainer, tmp_path, rule):
    """As hyperparameter_search does in every trial."""
    trainer = FlatTrainer(args=arguments(tmp_path), model_init=lambda: bert(), train_dataset=rows(64), gradient=rule())
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    first = train.snapshot(trainer.model)
    trainer.train()
    assert all(torch.equal(first[name], p) for name, p in train.snapshot(trainer.model).items())
    assert any(not torch.equal(first[name], p) for name, p in train.snapshot(bert()).items())


def test_the_second_pass_is_counted(FlatTrainer, tmp_path):
    once = run(FlatTrainer, bert(), tmp_path, gradient_accumulation_steps=2).state.total_flos
    twice = run(FlatTrainer, bert(), tmp_path, gradient=flat.sam(), gradient_accumulation_steps=2).state.total_flos
    assert twice == 2 * once > 0


PROCESS = """
import importlib.util, sys
import torch
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("trainer_tests", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
from trainflat import flat, hf
model = tests.bert()
options = {"gradient": flat.sam(rho=0.1), "gradient_accumulation_steps": 2, "ddp_backend": "gloo"}
trainer = tests.run(hf.FlatTrainer, model, tests.Path(sys.argv[2]), **options)
if trainer.is_world_process_zero():
    model.save_pretrained(sys.argv[2])
torch.distributed.barrier()  # a process that ends while gloo's threads run may abort
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one_with_the_larger_batch(FlatTrainer, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", PROCESS, __file__, str(tmp_path / "two")]
    both = [
        subprocess.Popen(command, env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(timeout=250) for process in both] == [0, 0]
    one = bert()
    options = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2 * SIZE}
    run(FlatTrainer, one, tmp_path / "one", gradient=flat.sam(rho=0.1), **options)
    two = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "two")
    close(one, two, rtol=1e-5, atol=1e-6)


def test_what_a_rule_cannot_work_with_is_refused(FlatTrainer, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unlike LOMO; use AdamW"):
        FlatTrainer(bert(), arguments(tmp_path, optim="lomo"), gradient=flat.sam())
    for no_rule in (flat.sam, "sam", 0.05):
        with pytest.raises(TypeError, match=r"gradient is a rule.*such as flat\.sam\(rho=0\.05\); this is"):
            FlatTrainer(bert(), arguments(tmp_path), gradient=no_rule)
    fp16 = arguments(tmp_path)
    fp16.fp16 = True  # transformers itself refuses it without a GPU
    monkeypatch.setattr(transformers.Trainer, "create_accelerator_and_postprocess", accelerator_without_precision)
    with pytest.raises(ValueError, match=r"does not work with fp16.*use bf16=True"):
        FlatTrainer(bert(), fp16, gradient=flat.sam())


def accelerator_without_precision(self):
    import accelerate

    self.accelerator = accelerate.Accelerator(cpu=True)
    self.is_deepspeed_enabled = self.is_fsdp_enabled = False
