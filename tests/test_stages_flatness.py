"""The stages that measure flatness, from the files and rows that they leave, and the reports made of these rows."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from contextlib import suppress

import numpy as np
import pytest
import torch

from trainflat import compress, flat, reports, train
from trainflat.experiments import plan as planning
from trainflat.experiments import runner, stages
from trainflat.experiments.recipe import read
from trainflat.experiments.resolve import Spec
from trainflat.experiments.store import Store
from trainflat.experiments.work import Interrupted, Parent, Work, make_task
from trainflat.reports import contours, drawing, flatness
from trainflat.reports.rows import results

IMP = '[stage.imp]\nkind = "Imp"\nsparsity = 0.9\nrounds = 3\nkeep_at = 0.6\n'
TWO = (
    '[stage.adam]\nkind = "Finetune"\n'
    '[stage.sam]\nkind = "Finetune"\ngradient = { name = "sam", rho = 0.5 }\n'
    '[stage.contours]\nkind = "Contours"\nfirst = "adam"\nsecond = "sam"\nsize = 4\n'
)
LITTLE = "directions = 10\nlanczos_iterations = 8\nprobes = 3\n"


@pytest.fixture
def ran(tmp_path, plugins):
    """Runs stages given as TOML; returns the document, the folder and the job of each by name."""

    def run(stages: str, **overrides):
        path = tmp_path / "trial.toml"
        path.write_text(f'[defaults]\ntask = "mylab:blobs"\nsteps = 30\n{stages}')
        plan = planning.plan(read(str(path)), overrides=overrides)
        store = Store(tmp_path / "store")
        runner.run(plan, store)
        return {job.name: (store.done(job.key), store.folder(job.key), job) for job in plan.jobs}

    return run


def sharpness_of(ran, *fields: str, of: str = IMP, name: str = "imp"):
    toml = "\n".join(fields)
    found = ran(f'{of}[stage.sharpness]\nkind = "Sharpness"\nmodel = "{name}"\n{LITTLE}{toml}\n')
    return found["sharpness"][0]["rows"], found[name]


def loss_of(folder, mask=None, first=None):
    task = make_task(Spec("mylab:blobs"))
    model = task.model(0)
    train.load_weights(folder / "model.safetensors", model)
    return flat.Loss(model, task.objective, task.held_out_batches(first), mask=mask)


# Sharpness


def test_the_row_holds_what_the_functions_measure_inside_the_ticket(ran):
    [row], (document, folder, _) = sharpness_of(ran)
    loss = loss_of(folder, compress.load_mask(folder / "ticket-0.6.safetensors"))
    assert loss.alive is not None
    found = row["sharpness"]
    boxes = flat.sharpness(loss, directions=10)
    assert {f"eps {eps:g}": phi for eps, phi in boxes.items()} == {n: v for n, v in found.items() if n[:3] == "eps"}
    assert list(boxes) == [5e-3, 1e-3, 5e-4]
    assert found["ascent"] == flat.ascent_sharpness(loss)
    assert (found["eigenvalue"], found["residual"]) == flat.top_eigenvalue(loss, max_iterations=8)[:2]
    assert (found["trace"], found["trace_error"]) == flat.trace(loss, probes=3)[:2]
    assert found["loss"] == loss.value()
    assert "value" not in row
    kept = next(r for r in document["rows"] if r.get("kept"))
    assert (row["variant"], row["sparsity"], row["examples"]) == ("imp", kept["sparsity"], 64)


def test_moved_weights_are_another_measure_and_a_dense_model_has_only_one(ran):
    frozen, moved = (sharpness_of(ran, f'masked = "{how}"')[0][0]["sharpness"] for how in ("frozen", "moved"))
    assert frozen != moved
    dense = '[stage.dense]\nkind = "Finetune"\n'
    one, other = (
        sharpness_of(ran, f'masked = "{how}"', of=dense, name="dense")[0][0]["sharpness"] for how in ("frozen", "moved")
    )
    assert one == other


def test_a_ticket_trained_again_is_measured_inside_its_mask(ran):
    retrain = IMP + '[stage.retrain]\nkind = "Finetune"\nticket = "imp"\n'
    [row], (_, folder, _) = sharpness_of(ran, of=retrain, name="retrain")
    mask = compress.load_mask(next(folder.parent.glob("*/ticket.safetensors")))
    assert row["sharpness"]["ascent"] == flat.ascent_sharpness(loss_of(folder, mask))
    assert row["sparsity"] == mask.sparsity


def test_fewer_examples_and_no_hessian_if_asked(ran):
    [row], (_, folder, _) = sharpness_of(ran, "examples = 20", "hessian = false")
    assert row["examples"] == 20
    assert "eigenvalue" not in row["sharpness"]
    assert row["sharpness"]["loss"] == loss_of(folder, first=20).value()


@pytest.mark.parametrize("kind", ["Sharpness", "Contours"])
def test_a_stage_killed_again_and_again_ends_with_the_same_numbers(ran, tmp_path, kind):
    found = ran(TWO + f'[stage.sharpness]\nkind = "Sharpness"\nmodel = "adam"\n{LITTLE}')
    document, _, job = found[kind.lower()]
    parents = {
        field: Parent(found[parent.name][2].stage, found[parent.name][1], found[parent.name][0]["rows"])
        for field, parent in job.parents.items()
    }
    told, rows, starts, passes = [], None, 0, 0

    def stop() -> bool:
        nonlocal passes
        passes += 1
        return passes & (passes - 1) == 0  # 1, 2, 4, 8 …: each time it gets further

    folder = tmp_path / "again"
    folder.mkdir()
    while rows is None:
        starts += 1
        assert starts < 50
        with suppress(Interrupted):
            rows = job.stage.run(Work(folder, job.seed, parents, progress=told.append, stop=stop))
    assert rows == document["rows"]
    assert starts > 4
    assert told[-1]["done"] == told[-1]["of"]
    assert list(folder.iterdir()) == []


# Contours


def test_the_map_goes_through_the_three_models_with_either_head(ran):
    found = ran(TWO)
    [row] = found["contours"][0]["rows"]
    drawn, task = row["contours"], make_task(Spec("mylab:blobs"))
    assert drawn["labels"] == ["initial", "adam", "sam"]
    assert "value" not in row
    assert (len(drawn["x"]), len(drawn["y"])) == (4, 4)
    states = [train.snapshot(task.model(0))]
    states += [train.state.read(found[name][1] / "model.safetensors")[0] for name in ("adam", "sam")]
    for i, head in enumerate(("adam", "sam")):
        one = drawn["heads"][i]
        assert one["head"] == head
        assert np.shape(one["losses"]) == (4, 4)
        for state, value in zip(states, one["points"], strict=True):
            model = task.model(0)
            mixed = {n: states[i + 1][n] if n.startswith(task.head) else t for n, t in state.items()}
            train.restore(model, mixed)
            model.eval()
            [batch] = task.held_out_batches()
            assert value == pytest.approx(task.objective(model, batch).item(), rel=1e-5)
    names = [name for name in states[0] if not name.startswith(task.head)]
    encoder = [torch.cat([state[name].flatten() for name in names]) for state in states]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        apart = np.hypot(*np.subtract(drawn["points"][i], drawn["points"][j]))
        assert apart == pytest.approx((encoder[i] - encoder[j]).norm().item(), rel=1e-4)


def test_the_corners_of_the_map_are_where_they_are_said_to_be(ran):
    found = ran(TWO)
    [row] = found["contours"][0]["rows"]
    drawn, loss = row["contours"], loss_of(found["adam"][1])
    task = make_task(Spec("mylab:blobs"))
    head = {n: t for n, t in loss.model.state_dict().items() if n.startswith(task.head)}
    states = [train.snapshot(task.model(0)), train.snapshot(loss.model)]
    states.append(train.state.read(found["sam"][1] / "model.safetensors")[0])
    plane = flat.plane(*(loss.flat({**state, **head}) for state in states))
    for i, j in ((0, 0), (3, 0), (0, 3), (2, 1)):
        with loss.at(plane.at(drawn["x"][i], drawn["y"][j])):
            assert drawn["heads"][0]["losses"][j][i] == pytest.approx(loss.value(), rel=1e-6)


def test_the_first_point_may_be_another_stages_model(ran):
    toml = '[stage.other]\nkind = "Finetune"\noptimizer = "SGD"\n' + TWO + 'start = "other"\n'
    [row] = ran(toml)["contours"][0]["rows"]
    [plain] = ran(TWO)["contours"][0]["rows"]
    assert row["contours"]["labels"][0] == "other"
    assert row["contours"]["heads"][0]["points"][0] != plain["contours"]["heads"][0]["points"][0]
    assert row["contours"]["heads"][0]["points"][1:] == plain["contours"]["heads"][0]["points"][1:]


# told while planning


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('kind = "Sharpness"\nmodel = "adam"\neps = [0.0]', "must be above 0, got [0.0]"),
        ('kind = "Sharpness"\nmodel = "adam"\nmasked = "ignored"', "masked must be"),
        ('kind = "Sharpness"\nmodel = "adam"\nexamples = 0', "leave it out for all"),
        ('kind = "Sharpness"\nmodel = "adam"\nprobes = 1', "probes at least 2"),
        ('kind = "Sharpness"\nmodel = "adam"\nrho = -1.0', "rho must be at least 0"),
        ('kind = "Contours"\nfirst = "adam"\nsecond = "sam"\nsize = 1', "size must be at least 2"),
        ('kind = "Contours"\nfirst = "adam"\nsecond = "sam"\nexamples = 0', "leave it out for all"),
        ('kind = "Contours"\nfirst = "adam"\nsecond = "digits"', "must be of one task"),
    ],
)
def test_what_cannot_be_is_told_while_planning(ran, toml, said):
    other = '[stage.digits]\nkind = "Finetune"\ntask = "digits"\n'
    with pytest.raises(ValueError) as error:
        ran(TWO + other + "[stage.wrong]\n" + toml)
    assert said in str(error.value)


def test_both_are_stages():
    assert {"Contours", "Sharpness"} <= set(stages.__all__)


# reports


def measured(seeds=(0, 1, 2)):
    """Rows of two tasks and arms: SAM is flatter by 10 + seed at eps 0.005 and no different elsewhere."""
    return [
        {
            "recipe": "r", "stage": "sharpness", "kind": "Sharpness", "key": f"{task}{arm}{seed}", "seed": seed,
            "arm": {"task": task, "optimizer": arm}, "task": task, "variant": "imp" if task == "qqp" else "dense",
            "sparsity": 0.9 if task == "qqp" else 0.0,
            "sharpness": {
                "loss": 0.5, "eps 0.0005": 0.02 + 0.001 * seed, "eps 0.005": 40.0 + seed - (10 + seed) * (arm == "SAM"),
                "ascent": 0.01, "eigenvalue": 25.0, "residual": 0.001 * (seed + 1), "trace": 100.0, "trace_error": 5.0,
            },
        }
        for task in ("rte", "qqp") for arm in ("Adam", "SAM") for seed in seeds
    ]  # fmt: skip


def mapped(**change):
    grid = [[1.0 + x * x + y for x in range(5)] for y in range(4)]
    heads = [{"head": name, "losses": grid, "points": [1.0, 2.0, 3.0]} for name in ("adam", "sam")]
    lines = {"x": [0.0, 1.0, 2.0, 3.0, 4.0], "y": [0.0, 1.0, 2.0, 3.0]}
    about = {"labels": ["initial", "adam", "sam"], "points": [[0, 0], [3, 0], [1, 2]]}
    drawn = {**lines, **about, "heads": heads, **change}
    return {"task": "qqp", "variant": "contours", "seed": 0, "arm": {}, "key": "c", "contours": drawn}


def test_the_table_has_every_box_the_largest_first():
    table = flatness.sharpness(results(measured()))
    assert table.header == ("task", "model", "optimizer", "eps 0.005", "eps 0.0005")
    assert table.rows[0] == ("rte", "dense", "Adam", "41.0 ± 1.0", "0.021 ± 0.001")
    assert table.rows[3] == ("qqp", "IMP 90 %", "SAM", "30.0 ± 0.0", "0.021 ± 0.001")
    assert "n = 3" in table.title
    assert flatness.curvature(results(measured())).rows[0][3:] == (
        "0.01 ± 0.0",
        "25.0 ± 0.0",
        "0.003",
        "100.0 ± 0.0",
        "5 %",
    )


def test_a_difference_is_paired_and_below_zero_is_flatter():
    table = flatness.differences(results(measured()), "Adam", "SAM")
    first = table.rows[0]
    assert first[:6] == ("rte", "dense", "eps 0.005", "30.0", "41.0", "−11.0")
    assert first[6] == "[−13.5, −8.5]"  # 11 ± 4.303 * 1 / sqrt(3)
    assert first[7:] == ("3", "flatter")
    assert {row[-1] for row in table.rows[1:5]} == {"cannot tell"}
    assert "paired over seeds" in table.title


def test_seeds_that_differ_are_counted_in_each_row():
    rows = [row for row in measured() if (row["task"], row["seed"]) != ("qqp", 2)]
    assert [row[-1] for row in flatness.sharpness(results(rows)).rows] == ["n = 3", "n = 3", "n = 2", "n = 2"]


def test_rows_without_sharpness_have_no_such_tables():
    from trainflat.reports import example

    assert reports.how_flat(example.rows()) == []
    assert contours.panels(results(example.rows())) == []
    page = reports.report(example.rows(), example.header())
    assert 'id="flatness"' not in page
    assert 'id="maps"' not in page


def test_page_and_folder_show_tables_and_maps(tmp_path):
    rows = [*measured(), mapped()]
    page = reports.report(rows, {})
    for text in ("Flatness", "−11.0", "flatter", "Loss maps", "qqp, head of adam, seed 0", "2.83 apart"):
        assert text in page, text
    assert page.count('aria-label="Loss map of qqp') == 2
    written = reports.write_all(rows, {}, tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in written if path.parent.name == "contours"]
    stems = ["contours/00-qqp-head-of-adam-seed-0", "contours/01-qqp-head-of-sam-seed-0"]
    assert names == [f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")]
    assert "Sharpness of the held-out loss" in (tmp_path / "table.md").read_text("utf-8")
    assert "contours" not in (tmp_path / "rows.csv").read_text("utf-8").replace(
        ",contours,", ","
    )  # but for its variant
    assert reports.read_back(tmp_path)[0] == rows


def test_a_map_is_xml_in_the_texts_colour_with_the_three_points_marked():
    root = ET.fromstring(contours.svg(mapped(), 1))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"initial", "adam", "sam"} <= set(texts)
    drawn = ET.tostring(root, encoding="unicode")
    assert all(colour in drawn for colour in drawing.COLOURS[:2])
    assert drawing.INK not in drawn
    assert contours.svg(mapped(), 1) == contours.svg(mapped(), 1)


@pytest.mark.parametrize("losses", [[[0.0] * 5] * 4, [[2.0] * 5] * 4, [[1e-9 * x for x in range(5)]] * 4])
def test_a_flat_map_can_be_drawn(losses):
    heads = [{"head": "adam", "losses": losses, "points": [0.0, 0.0, 0.0]}]
    ET.fromstring(contours.svg(mapped(heads=heads), 0))
