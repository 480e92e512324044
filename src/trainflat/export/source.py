"""What an export or a bench starts from: a folder with a finished model, whichever of ours or of transformers it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import nn

from trainflat.experiments.recipe import read
from trainflat.experiments.resolve import Spec, files_behind, look_anew, sentence
from trainflat.experiments.work import TASKS, Parent, make_task

__all__ = ["Source", "open_source"]

GRAPH, ABOUT = "model.onnx", "export.json"


@dataclass(frozen=True)
class Source:
    """A finished model and what is known of it.

    Attributes:
        folder: Where it lies.
        model: In evaluation mode, on the CPU.
        words: Its tokenizer; None for a model that reads no texts.
        task: What it was trained on, if that is known and its data is there.
        pair: Whether its task is about two texts at a time, known from its recipe where the data is not there.
        row: What a finished stage says of it: metric, sparsity; empty elsewhere.
        remarks: What could not be found, in sentences.
    """

    folder: Path
    model: nn.Module
    words: Any = None
    task: Any = None
    pair: bool = False
    row: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def longest(self) -> int | None:
        """How many tokens it takes: what it was trained with, where that is known."""
        if self.words is None:
            return getattr(self.task, "max_length", None) or None
        from trainflat.hf import finished

        own = finished.longest(self.model, self.words)
        return min(own, getattr(self.task, "max_length", own))

    def example(self, batch: int, length: int | None = None) -> Any:
        """A batch for timing: random tokens; or the task's own examples, of ``length`` tokens if these have any."""
        if self.words is None:
            return self.task.inputs(batch, length if self.longest else None)
        from trainflat.hf import finished

        return finished.example(self.model, self.words, batch, min(length or 32, self.longest or 32))


def open_source(folder: str | Path) -> Source:
    """Read a folder: of ``save_pretrained``, of `trainflat compress --out`, or a finished stage's in a store.

    Raises:
        FileNotFoundError: If there is no such folder, or no model in it; says what serves.
        ValueError, LookupError: If what is there cannot be read, or needs a task that cannot be had.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; name one that holds a finished model")
    if (folder / "done.json").is_file() or (folder / "stage.json").is_file():
        return _stage(folder)
    if (folder / ABOUT).is_file():
        raise ValueError(f"{folder} is exported already; give the folder that it was exported from")
    if not (folder / "config.json").is_file():
        serves = "a folder of save_pretrained or of trainflat compress, or a stage's folder in a store"
        raise FileNotFoundError(f"{folder} holds no finished model; {serves} does")
    from trainflat.hf import finished

    model, words = finished.load(folder)
    task, pair, remarks = _task_of_recipe(folder / "recipe.toml", folder / "report" / "run.json")
    return Source(folder, model, words, task, pair, {}, remarks)


def _stage(folder: Path) -> Source:
    if not (folder / "done.json").is_file():
        raise FileNotFoundError(f"{folder} is a stage that is not finished; run its recipe again, and it goes on")
    done, stage = (_json(folder / name) for name in ("done.json", "stage.json"))
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"{folder} is a stage {done.get('kind')}, which leaves no model behind; give the one that it builds on"
        )
    spec = _spec(folder, stage)
    parent = Parent(SimpleNamespace(task=spec), folder, done["rows"])
    model = parent.model(int(stage["seed"])).eval()
    task = parent.task()
    pair = len(getattr(getattr(task, "_train", None), "texts", ())) == 2
    if not hasattr(getattr(model, "config", None), "save_pretrained"):
        return Source(folder, model, None, task, pair, parent.row)
    from trainflat.hf import finished

    return Source(folder, model, finished.tokenizer(task.model_name), task, pair, parent.row)


def _spec(folder: Path, stage: Mapping[str, Any]) -> Spec:
    """The task of a stage, or of the stage that it builds on; what planning noted of its data is no argument of it."""
    settings = stage.get("settings", {})
    if "task" in settings:
        spec = Spec.parse(settings["task"], f"the task of {folder}")
        return Spec(spec.name, {key: value for key, value in spec.kwargs.items() if key != "fingerprint"})
    for key in (stage.get("parents") or {}).values():
        above = folder.parent / key
        if (above / "stage.json").is_file():
            return _spec(above, _json(above / "stage.json"))
    raise LookupError(f"{folder} does not say what its model was trained on, nor does any stage beside it")


def _task_of_recipe(recipe: Path, run: Path) -> tuple[Any, bool, tuple[str, ...]]:
    """What `trainflat compress` leaves beside a model: the task, whether it is about pairs, and a sentence where it cannot be
    scored again, its data being gone or not that of the training."""
    if not recipe.is_file():
        return None, False, ()
    pair, unscored = False, "so its metric was not measured again"
    try:
        spec = Spec.parse(read(str(recipe)).document["defaults"]["task"], str(recipe))
        pair = spec.kwargs.get("text2") is not None
        look_anew()
        if run.is_file() and _json(run).get("files", files := files_behind(spec, TASKS)) != files:
            return None, pair, (f"its table or the checkpoint that it was made from has changed since, {unscored}",)
        return make_task(spec), pair, ()
    except (LookupError, ValueError, OSError, ImportError) as error:
        return None, pair, (f"its data was not found, {unscored}: {sentence(error)}",)


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {sentence(error)}") from error
