"""Lightning's Trainer with our callback does what the same rule does in a loop by hand."""

from __future__ import annotations

from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainflat import flat
from trainflat.lightning import FlatCallback

pytestmark = [  # Lightning's own, of its calls to torch and of our small loaders
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*`training_step` returned `None`"),
    pytest.mark.filterwarnings("ignore:.*`dataloader_iter`"),
]
SIZE, STEPS = 4, 6


class Module(pl.LightningModule):
    """A classifier with dropout; it writes down at which weights it was asked."""

    def __init__(self, optimizer="AdamW", dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2))
        self.optimizer, self.asked = optimizer, []

    def loss(self, batch):
        x, y = batch
        self.asked.append(self.net[0].weight.detach().clone())
        return nn.functional.cross_entropy(self.net(x), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0])

    def configure_optimizers(self):
        return getattr(torch.optim, self.optimizer)(self.parameters(), lr=0.05)


def batches(count=STEPS):
    torch.manual_seed(1)
    data = TensorDataset(torch.randn(count * SIZE, 3), torch.randint(0, 2, (count * SIZE,)))
    return DataLoader(data, batch_size=SIZE)


def trainer(*callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options = {"max_epochs": 1, "enable_checkpointing": False} | options
    return pl.Trainer(callbacks=list(callbacks), **quiet, **options)


def by_hand(module, rule, accumulate=1, clip=None, loader=None):
    """The same training as a loop of one's own."""
    loader = list(loader or batches())
    optimizer, params = module.configure_optimizers(), dict(module.named_parameters())
    starts = range(0, len(loader), accumulate)
    losses = []
    for step, start in enumerate(starts):

        def closure():
            total = torch.zeros(())
            for batch in loader[start : start + accumulate]:  # noqa: B023
                loss = module.loss(batch) / accumulate
                loss.backward()
                total = total + loss.detach()
            return total

        closure.model = module
        optimizer.zero_grad()
        losses.append(float(rule(closure, params, step / len(starts))))
        if clip:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
    return losses


def same(one, other):
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


RULES = {
    "plain": flat.plain,
    "sam": partial(flat.sam, rho=0.05),
    "replay": partial(flat.sam, rho=0.05, dropout="replay"),
    "asam": partial(flat.asam, rho=0.5),
    "gsam": flat.gsam,
    "sam_on": flat.sam_on,
    "looksam": flat.looksam,
    "stale_sam": partial(flat.stale_sam, rho=0.05),
    "stale_cram": flat.stale_cram,
    "cram": flat.cram,
    "late": partial(flat.late, rho=0.1),
    "auto": partial(flat.sam, rho="auto"),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (3, 0.1)])
def test_it_is_the_loop_by_hand_bit_for_bit(rule, accumulate, clip):
    ours, theirs = Module(dropout=0.3), Module(dropout=0.3)
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": clip}
    torch.manual_seed(2)
    trainer(FlatCallback(rule()), **options).fit(theirs, batches())
    torch.manual_seed(2)
    by_hand(ours, rule(), accumulate, clip)
    assert same(ours, theirs)
    assert not same(ours, Module())


@pytest.mark.parametrize("accumulate", [1, 4])  # of six batches, so that the last step has two
def test_plain_is_lightning_without_the_callback(accumulate):
    with_it, without = Module(dropout=0.3), Module(dropout=0.3)
    for module, callbacks in ((with_it, [FlatCallback(flat.plain())]), (without, [])):
        torch.manual_seed(2)
        trainer(*callbacks, accumulate_grad_batches=accumulate).fit(module, batches())
    assert same(with_it, without)
    assert len(with_it.asked) == len(without.asked)


@pytest.mark.parametrize(("rule", "passes"), [(flat.sam, 2), (flat.stale_sam, 1)])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_micro_batch_costs_no_pass_that_the_rule_does_not_take(rule, passes, accumulate):
    module = Module()
    trainer(FlatCallback(rule()), accumulate_grad_batches=accumulate).fit(module, batches())
    assert len(module.asked) == passes * STEPS


def test_a_step_logs_the_loss_at_its_weights_once():
    ours, theirs = Module(), Module()
    run = trainer(FlatCallback(flat.sam(rho=0.5)))
    run.fit(theirs, batches())
    losses = by_hand(ours, flat.sam(rho=0.5))
    assert float(run.callback_metrics["train_loss"]) == pytest.approx(sum(losses) / STEPS, rel=1e-6)


@pytest.mark.parametrize(
    "name", ["stale_sam", "auto", "looksam"]
)  # whose steps do not depend on where the run is to end
def test_a_rule_with_memory_goes_on_where_the_checkpoint_was(name, tmp_path):
    whole, half, resumed = Module(), Module(), Module()
    trainer(FlatCallback(RULES[name]()), max_epochs=2).fit(whole, batches())
    first = trainer(FlatCallback(RULES[name]()))
    first.fit(half, batches())
    first.save_checkpoint(tmp_path / "half")
    trainer(FlatCallback(RULES[name]()), max_epochs=2).fit(resumed, batches(), ckpt_path=tmp_path / "half")
    assert same(whole, resumed)
    assert not same(whole, half)


def test_a_checkpoint_and_a_rule_of_which_only_one_has_a_memory_are_refused(tmp_path):
    for callbacks, file in (
        ([], "none"),
        ([FlatCallback(flat.stale_sam())], "stale"),
        ([FlatCallback(flat.sam())], "sam"),
    ):
        run = trainer(*callbacks)
        run.fit(Module(), batches())
        run.save_checkpoint(tmp_path / file)
    more = partial(trainer, max_epochs=2)
    for file in ("none", "sam"):
        with pytest.raises(ValueError, match="holds nothing that the rule remembers"):
            more(FlatCallback(flat.stale_sam())).fit(Module(), batches(), ckpt_path=tmp_path / file)
    with pytest.raises(ValueError, match="holds the memory of the run's gradient"):
        more(FlatCallback(flat.sam())).fit(Module(), batches(), ckpt_path=tmp_path / "stale")
    more(FlatCallback(flat.sam())).fit(Module(), batches(), ckpt_path=tmp_path / "none")
    for rule, file in ((flat.stale_sam(), "sam"), (flat.sam(), "stale")):  # to predict needs no memory
        trainer(FlatCallback(rule)).predict(Module(), batches(), ckpt_path=tmp_path / file)


class Skips(Module):
    def training_step(self, batch, batch_idx):
        return None if batch_idx in (1, 2, 3) else self.loss(batch)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_without_a_loss_is_skipped(accumulate):
    with_it, without = Skips(), Skips()
    for module, callbacks in ((with_it, [FlatCallback(flat.plain())]), (without, [])):
        trainer(*callbacks, accumulate_grad_batches=accumulate).fit(module, batches())
    assert same(with_it, without)
    sam = Skips()
    trainer(FlatCallback(flat.sam(rho=0.5)), accumulate_grad_batches=accumulate).fit(sam, batches())
    assert not same(sam, with_it)


class Shares(Module):
    """It validates with what it trains with."""

    def validation_step(self, batch, batch_idx):
        self.validated = self.training_step(batch, batch_idx)


def test_a_training_step_outside_of_the_training_is_the_modules_own():
    ours, theirs = Shares(), Shares()
    for module, callbacks in ((ours, [FlatCallback(flat.plain())]), (theirs, [])):
        trainer(*callbacks, accumulate_grad_batches=2, val_check_interval=3).fit(module, batches(), batches(1))
    assert same(ours, theirs)
    assert ours.validated == theirs.validated


def test_what_stands_on_the_module_itself_is_run_and_stays():
    """As the compiled training_step of a module that torch has compiled."""
    module, called = Module(), []
    own = module.training_step
    module.training_step = lambda batch, batch_idx: called.append(batch_idx) or own(batch, batch_idx)
    module.log = lambda *args, **kwargs: None
    stands = {name: vars(module)[name] for name in ("training_step", "log")}
    trainer(FlatCallback(flat.sam())).fit(module, batches())
    assert len(called) == 2 * STEPS
    assert {name: vars(module)[name] for name in stands} == stands
    assert "optimizer_step" not in vars(module)


class LogsNothing(Module):
    """Torch 2.13 does not compile Lightning's own ``log``."""

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])


def test_a_compiled_module_is_trained_compiled():
    plain, compiled = LogsNothing(), LogsNothing()
    trainer(FlatCallback(flat.sam())).fit(plain, batches())
    run = []
    backend = lambda graph, inputs: run.append(graph) or graph.forward
    trainer(FlatCallback(flat.sam())).fit(torch.compile(compiled, backend=backend), batches())
    assert run
    assert same(plain, compiled)


class ByHand(Module):
    automatic_optimization = False


class Fetches(Module):
    def training_step(self, dataloader_iter):
        return self.loss(next(dataloader_iter)[0])


def test_what_it_cannot_do_is_said_before_the_first_step():
    run = {
        "optimizes by hand": lambda: trainer(FlatCallback(flat.sam())).fit(ByHand(), batches()),
        "fetches its batches itself": lambda: trainer(FlatCallback(flat.sam())).fit(Fetches(), batches()),
        "LBFGS takes several gradients": lambda: trainer(FlatCallback(flat.sam())).fit(Module("LBFGS"), batches()),
    }
    for sentence, fit in run.items():
        with pytest.raises(ValueError, match=sentence):
            fit()
    with pytest.raises(TypeError, match="to ascend on a part of the batch"):
        trainer(FlatCallback(flat.quarter_batch())).fit(Module(), batches())


def test_scaled_gradients_are_refused():
    plugin = pl.plugins.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(ValueError, match="does not work with 16-mixed"):
        trainer(FlatCallback(flat.sam()), plugins=[plugin]).fit(Module(), batches())


class Breaks(Module):
    def training_step(self, batch, batch_idx):
        if batch_idx == 2 and len(self.asked) % 2:
            raise RuntimeError("out of memory")
        return self.loss(batch)


def test_the_module_is_as_it_was_afterwards_and_after_an_error():
    module = Module()
    trainer(FlatCallback(flat.sam())).fit(module, batches())
    broken = Breaks()
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(FlatCallback(flat.sam())).fit(broken, batches())
    for each in (module, broken):
        assert not vars(each).keys() & {"training_step", "optimizer_step", "log"}
    assert torch.equal(broken.net[0].weight, broken.asked[-1])  # the weights of that step, not the moved ones


def test_mixed_precision_in_sixteen_bits_is_lightnings():
    module, plain = Module(), Module()
    trainer(FlatCallback(flat.sam(rho=0.05)), precision="bf16-mixed").fit(module, batches())
    trainer(FlatCallback(flat.plain()), precision="bf16-mixed").fit(plain, batches())
    assert not same(module, plain)
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in module.parameters())


class OneOfTwo(Module):
    """Each process has every other example, so that both together have the batches of one that is alone."""

    def train_dataloader(self):
        data = batches().dataset
        return DataLoader(data, batch_size=SIZE // 2, sampler=range(self.global_rank, len(data), 2))


@pytest.mark.slow  # it forks two processes
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_ascend_together(accumulate):
    alone, together = Module("SGD"), OneOfTwo("SGD")
    options = {"accumulate_grad_batches": accumulate, "use_distributed_sampler": False}
    trainer(FlatCallback(flat.sam(rho=0.5)), **options).fit(alone, batches())
    strategy = pl.strategies.DDPStrategy(start_method="fork", process_group_backend="gloo")
    trainer(FlatCallback(flat.sam(rho=0.5)), devices=2, strategy=strategy, **options).fit(together)
    for one, other in zip(alone.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert not same(alone, Module("SGD"))


@pytest.mark.slow  # it forks two processes
def test_memory_that_two_passes_would_share_is_refused():
    strategy = pl.strategies.DDPStrategy(
        start_method="fork", process_group_backend="gloo", gradient_as_bucket_view=True
    )
    with pytest.raises(
        torch.multiprocessing.ProcessRaisedException, match="make it with gradient_as_bucket_view=False"
    ):
        trainer(FlatCallback(flat.sam()), devices=2, strategy=strategy).fit(Module(), batches())
