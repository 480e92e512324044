"""Each stage does what its docstring says, seen from the files and rows that it leaves."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch

from trainflat import compress, train
from trainflat.experiments import plan as planning
from trainflat.experiments import runner
from trainflat.experiments.recipe import read
from trainflat.experiments.store import Store
from trainflat.experiments.work import make_task


@pytest.fixture
def ran(tmp_path, plugins):
    """Runs stages given as TOML; returns the documents and folders by stage name."""

    def run(stages: str, **overrides):
        path = tmp_path / "trial.toml"
        path.write_text(f'[defaults]\ntask = "mylab:blobs"\nsteps = 12\n{stages}')
        plan = planning.plan(read(str(path)), overrides=overrides)
        store = Store(tmp_path / "store")
        runner.run(plan, store)
        jobs = {job.name: job for job in plan.jobs}
        return {name: (store.done(job.key), store.folder(job.key), job) for name, job in jobs.items()}

    return run


IMP = '[stage.imp]\nkind = "Imp"\nsparsity = 0.9\nrounds = 3\n'


def test_the_score_of_a_round_belongs_to_the_mask_it_trained_with(ran):
    document, folder, _ = ran(IMP)["imp"]
    assert [row["sparsity"] for row in document["rows"]] == pytest.approx([0, 0.3, 0.6, 0.9], abs=2e-3)
    task = make_task_of(document, folder)
    model = task.model(0)
    train.load_weights(folder / "model.safetensors", model)
    assert task.evaluate(model)["accuracy"] == document["rows"][-1]["value"]
    mask = compress.load_mask(folder / "ticket.safetensors")
    assert mask.sparsity == document["rows"][-1]["sparsity"]
    assert all((dict(model.named_parameters())[name][~alive] == 0).all() for name, alive in mask.items())


def make_task_of(document, folder):
    from trainflat.experiments.resolve import Spec

    return make_task(Spec("mylab:blobs"))


def test_the_last_round_is_a_finetuning_of_the_ticket(ran):
    """With the head rewound, training the ticket anew is the last round, but for its own seed of the data order."""
    stages = ran(IMP + 'head = "rewind"\n[stage.retrain]\nkind = "Finetune"\nticket = "imp"\n')
    imp, retrain = stages["imp"][0]["rows"][-1], stages["retrain"][0]["rows"][-1]
    assert retrain["sparsity"] == imp["sparsity"]
    assert retrain["variant"] == "ticket"


@pytest.mark.parametrize("head", ["keep", "reinit", "rewind"])
def test_rewinding_restores_the_encoder_and_treats_the_head_as_told(head, plugins):
    from trainflat.experiments.resolve import Spec
    from trainflat.experiments.stages import Imp

    stage = Imp(task=Spec("mylab:blobs"), steps=1, sparsity=0.5, rounds=1, head=head)
    task = make_task(stage.task)
    model = task.model(0)
    start = train.snapshot(model)
    trained = {name: tensor + 1 for name, tensor in start.items()}
    train.restore(model, trained)
    mask = compress.Mask.dense(model, task.prunable)
    stage._begin(model, task, compress.Ticket(mask, start), stage._carried(model, task), 1, 0)
    for name, tensor in model.state_dict().items():
        if not name.startswith(task.head):
            assert torch.equal(tensor, start[name])
        elif head == "keep":
            assert torch.equal(tensor, trained[name])
        elif head == "rewind":
            assert torch.equal(tensor, start[name])
        else:
            assert not torch.equal(tensor, start[name])
            assert not torch.equal(tensor, trained[name])


def test_without_rewinding_the_pruned_weights_go_on(ran):
    document, _, _ = ran(IMP + "rewind = false\n")["imp"]
    assert {row["variant"] for row in document["rows"]} == {"std"}
    rewound, _, _ = ran(IMP)["imp"]
    assert document["rows"][0]["value"] == rewound["rows"][0]["value"]  # the first training is the same
    assert document["rows"][-1]["value"] >= rewound["rows"][-1]["value"]  # 48 steps against 12 on an easy task


def test_one_shot_at_zero_is_the_dense_model(ran):
    stages = ran(
        '[stage.train]\nkind = "Finetune"\n[stage.oneshot]\nkind = "OneShot"\nmodel = "train"\nsparsities = [0.0, 0.5]\n'
    )
    dense, rows = stages["train"][0]["rows"][0], stages["oneshot"][0]["rows"]
    assert rows[0]["value"] == dense["value"]
    assert [row["sparsity"] for row in rows] == [0.0, 0.5]
    assert rows[1]["sparsity_total"] == pytest.approx(128 / (8 * 32 + 32 + 32 * 4 + 4))


def test_the_best_epoch_is_kept_if_asked(ran):
    document, folder, job = ran(
        '[stage.train]\nkind = "Finetune"\nkeep = "best"\nsteps = 60\noptimizer.name = "SGD"\noptimizer.lr = 3.0\n'
    )["train"]
    task = make_task(job.stage.task)
    model = task.model(0)
    train.load_weights(folder / "model.safetensors", model)
    assert task.evaluate(model)["accuracy"] == document["rows"][0]["value"]
    last, _, _ = ran('[stage.train]\nkind = "Finetune"\nsteps = 60\noptimizer.name = "SGD"\noptimizer.lr = 3.0\n')[
        "train"
    ]
    assert document["rows"][0]["value"] >= last["rows"][0]["value"]


def test_sam_counts_two_passes_a_step(ran):
    document, _, _ = ran('[stage.train]\nkind = "Finetune"\n', **{"train.gradient": "sam"})["train"]
    assert (document["rows"][0]["steps"], document["rows"][0]["passes"]) == (12, 24)


def test_a_rule_from_anybodys_module_runs(ran):
    document, _, _ = ran('[stage.train]\nkind = "Finetune"\ngradient = { name = "mylab:noisy", sigma = 0.1 }\n')[
        "train"
    ]
    assert document["rows"][0]["passes"] == 12


def test_quantize_and_measure_follow_their_model(ran):
    stages = ran(
        '[stage.train]\nkind = "Finetune"\n[stage.int8]\nkind = "Quantize"\nmodel = "train"\n'
        '[stage.cost]\nkind = "Measure"\nmodel = "train"\n'
        '[stage.small]\nkind = "Measure"\nmodel = "train"\nquantizer = "dynamic_int8"\n'
    )
    assert stages["int8"][0]["rows"][0]["variant"] == "int8 per_channel"
    dense, small = (stages[name][0]["rows"][0]["cost"] for name in ("cost", "small"))
    assert dense["parameters"] == small["parameters"] == 8 * 32 + 32 + 32 * 4 + 4
    assert dense["multiply_adds"] == small["multiply_adds"] == 8 * 32 + 32 * 4


def test_a_ticket_of_other_weights_is_refused(ran, tmp_path):
    stages = ran(IMP)
    _, folder, _ = stages["imp"]
    compress.Ticket(compress.load_mask(folder / "ticket.safetensors"), {"w": torch.ones(1)}).save(
        folder / "ticket.safetensors"
    )
    with pytest.raises(ValueError, match="was drawn from other weights"):
        ran(IMP + '[stage.retrain]\nkind = "Finetune"\nticket = "imp"\n')


def test_every_round_leaves_its_ticket(ran):
    stages = ran(
        IMP
        + '[stage.at-60]\nkind = "Finetune"\nticket = "imp"\nat = 0.6\n[stage.last]\nkind = "Finetune"\nticket = "imp"\n'
    )
    imp, folder, _ = stages["imp"]
    assert stages["at-60"][0]["rows"][0]["sparsity"] == imp["rows"][2]["sparsity"]
    assert stages["last"][0]["rows"][0]["sparsity"] == imp["rows"][3]["sparsity"]
    masks = [
        compress.load_mask(folder / name)
        for name in ("ticket-0.3.safetensors", "ticket-0.6.safetensors", "ticket.safetensors")
    ]
    for larger, smaller in itertools.pairwise(masks):
        assert larger & smaller == smaller  # nested
    shorter = ran('[stage.imp]\nkind = "Imp"\nsparsity = 0.6\nrounds = 2\n')["imp"][1]
    assert compress.load_mask(shorter / "ticket.safetensors") == masks[1]


def test_the_model_of_an_earlier_round_is_kept_if_asked(ran):
    stages = ran(
        IMP + 'keep_at = 0.6\n[stage.int8]\nkind = "Quantize"\nmodel = "imp"\n'
        '[stage.short]\nkind = "Imp"\nsparsity = 0.6\nrounds = 2\n'
    )
    rows = stages["imp"][0]["rows"]
    assert [row.get("kept") for row in rows] == [None, None, True, None]
    assert stages["int8"][0]["rows"][0]["sparsity"] == rows[2]["sparsity"]
    one, other = (train.state.read(stages[name][1] / "model.safetensors")[0] for name in ("imp", "short"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_one_schedule_over_all_rounds_never_restarts(ran):
    import json

    def rates(**fields):
        _, folder, _ = ran(IMP + "rewind = false\n", **{"imp.steps": 50, **fields})["imp"]
        return [json.loads(line)["lr"] for line in (folder / "log.jsonl").read_text().splitlines()]

    whole, rounds = rates(**{"imp.schedule": "run"}), rates()
    assert rounds == pytest.approx([1e-3 / 50] * 4)  # the last step of each round, at t = 49/50 of it
    assert whole == pytest.approx([1e-3 * (1 - (50 * (i + 1) - 1) / 200) for i in range(4)])


def test_a_drawn_ticket_is_random_for_each_seed_and_exact(ran):
    toml = '[stage.draw]\nkind = "Draw"\nsparsity = 0.5\n[stage.train]\nkind = "Finetune"\nticket = "draw"\n'
    stages = ran(toml)
    mask = compress.load_mask(stages["draw"][1] / "ticket.safetensors")
    assert stages["draw"][0]["rows"][0]["sparsity"] == stages["train"][0]["rows"][0]["sparsity"] == 0.5
    assert mask.alive == 128
    again = compress.load_mask(ran(toml)["draw"][1] / "ticket.safetensors")
    assert again == mask
    largest = compress.load_mask(ran(toml, **{"draw.score": "magnitude"})["draw"][1] / "ticket.safetensors")
    task = make_task_of(None, None)
    assert largest == compress.prune(
        compress.magnitude(task.model(0)), 0.5, within=compress.Mask.dense(task.model(0), task.prunable)
    )


def test_an_average_is_what_is_kept_and_scored(ran):
    fields = {"train.average": {"name": "swa", "checkpoints": 3, "share": 1.0}}
    document, folder, job = ran('[stage.train]\nkind = "Finetune"\n', **fields)["train"]
    task = make_task(job.stage.task)
    model, snapshots = task.model(0), []
    torch.manual_seed(train.derive("training", 0, 0))
    adam = torch.optim.Adam(model.parameters(), fused=True)
    batches = task.batches(train.derive("data", 0, 0))
    for step in train.loop(model, task.objective, batches, adam, steps=12, lr=train.linear(), clip=1.0):
        if step.index + 1 in (4, 8, 12):
            snapshots.append(train.snapshot(model))
    kept = train.state.read(folder / "model.safetensors")[0]
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, torch.stack([s[name] for s in snapshots]).mean(0))
    train.restore(model, kept)
    assert task.evaluate(model)["accuracy"] == document["rows"][0]["value"]


def test_an_l1_penalty_makes_the_prunable_weights_smaller(ran):
    def size(**fields):
        _, folder, job = ran('[stage.train]\nkind = "Finetune"\nsteps = 100\n', **fields)["train"]
        weights, task = train.state.read(folder / "model.safetensors")[0], make_task(job.stage.task)
        model = task.model(0)
        return sum(float(weights[n].abs().sum()) for n, p in model.named_parameters() if task.prunable(n, p))

    assert size(**{"train.objective": {"name": "l1", "strength": 0.1}}) < 0.8 * size()


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('kind = "Finetune"\nat = 0.5', "name the stage that finds it"),
        ('kind = "Finetune"\nticket = "imp"\nat = 0.5', "leaves tickets at 0.3, 0.6, 0.9"),
        ('kind = "Finetune"\nticket = "x"', "which leaves no ticket"),
        ('kind = "Finetune"\naverage = "swa"\nkeep = "best"', "both say which iterate"),
        ('kind = "Finetune"\nobjective = { name = "l1", strength = -1.0 }', "strength must be at least 0"),
        ('kind = "Imp"\nkeep_at = 0.55', "none of the sparsities that are trained: 0, 0.1, 0.2"),
        ('kind = "Draw"\nsparsity = 1.0', "must be in (0, 1), got 1.0"),
    ],
)
def test_what_cannot_be_is_told_while_planning(ran, toml, said):
    with pytest.raises(ValueError) as error:
        ran(IMP + '[stage.x]\nkind = "Finetune"\n[stage.wrong]\n' + toml)
    assert said in str(error.value)


@pytest.mark.parametrize("number", [np.float32, np.float64, torch.tensor, float, int])
def test_a_metric_may_be_any_number(ran, monkeypatch, number):
    monkeypatch.setattr("mylab.Blobs.evaluate", lambda self, model: {"accuracy": number(1.0), "loss": number(2.0)})
    document, *_ = ran('[stage.train]\nkind = "Finetune"\nkeep = "best"')["train"]
    assert document["rows"][0]["metrics"] == {"accuracy": 1.0, "loss": 2.0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "gave {}; it gives numbers by name"),
        (0.5, "gave 0.5; it gives numbers by name"),
        ({"accuracy": None}, "it gives numbers by name"),
        (
            {"perplexity": 7.25, "accuracy": 0.5},
            "perplexity = 7.25; put one first that is in [-1, 1], the higher the better",
        ),
    ],
)
def test_what_is_no_metric_is_told_as_the_task_gave_it(ran, monkeypatch, given, said):
    monkeypatch.setattr("mylab.Blobs.evaluate", lambda self, model: given)
    with pytest.raises(ValueError, match="the task 'blobs'.*" + re.escape(said)):
        ran('[stage.train]\nkind = "Finetune"')


def test_a_score_that_is_no_number_is_not_the_best(ran, monkeypatch):
    scores = iter([math.nan, 0.5, 0.25, math.nan, 1.0])
    kept = []
    monkeypatch.setattr("mylab.Blobs.evaluate", lambda self, model: {"accuracy": next(scores)})
    monkeypatch.setattr(train, "save_weights", lambda path, model: kept.append(path.name))
    monkeypatch.setattr(train, "load_weights", lambda path, model: kept.append("back"))
    ran('[stage.train]\nkind = "Finetune"\nkeep = "best"\nepochs = 4', **{"train.steps": 48})
    assert kept == ["best.safetensors", "best.safetensors", "back", "model.safetensors"]
