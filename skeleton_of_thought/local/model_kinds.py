"""What the files of a model hold: the class of transformers that loads it as a text model, and its chat template.

Files that hold no model which continues a text are refused by what they are, before any weights are read.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto import modeling_auto

from skeleton_of_thought.errors import ModelLoadError

__all__ = ["check_gguf", "find_class", "stored_template"]

_AUTO = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")
"""Classes for models that write text, with those that also read images or sound."""

_FOR_CONFIG = ("revision", "token", "trust_remote_code", "cache_dir", "local_files_only", "subfolder")

_SPEECH = "a speech or audio model"
_HEADS: tuple[tuple[str, str], ...] = (
    (r"For(MaskedLM|PreTraining|NextSentencePrediction)$", "an encoder"),
    (r"For(Sequence|Token)Classification$|ForMultipleChoice$|ForSentiment", "a classifier"),
    (r"For(Visual|Document|Table)?QuestionAnswering", "a model that marks answers in a text"),
    (r"For(CTC|SpeechSeq2Seq|SpeechToText|Audio|TextToSpeech|TextToWaveform)|^(Whisper|Musicgen|Bark|Moshi)", _SPEECH),
    (
        r"For(Image|Video|Object|Semantic|Instance|Universal|Depth|Mask|Keypoint|ZeroShot)\w*$(?<!TextToText)",
        "an image model",
    ),
    (r"Diffusion|LLaDA|^Dream", "a diffusion model"),
)
"""Kinds of models by the names of their classes."""

_MAPPINGS: tuple[tuple[str, str], ...] = (
    ("MASKED_LM", "an encoder"),
    ("SPEECH_SEQ_2_SEQ", _SPEECH),
    ("CTC", _SPEECH),
    ("TEXT_TO_WAVEFORM", _SPEECH),
    ("AUDIO_CLASSIFICATION", _SPEECH),
    ("IMAGE_CLASSIFICATION", "an image model"),
    ("OBJECT_DETECTION", "an image model"),
    ("ZERO_SHOT_IMAGE_CLASSIFICATION", "an image model"),
    ("SEQUENCE_CLASSIFICATION", "a classifier"),
    ("TIME_SERIES_PREDICTION", "a model of time series"),
)
"""Kinds of models by transformers' own lists of them."""

_GGUF_OTHERS = {
    **dict.fromkeys(("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "modern-bert"), "an encoder"),
    **dict.fromkeys(("t5", "t5encoder"), "an encoder-decoder"),
    **dict.fromkeys(("clip", "mmproj"), "the image part of a vision-language model"),
    **dict.fromkeys(("whisper", "wavtokenizer-dec"), _SPEECH),
    **dict.fromkeys(("flux", "sd1", "sdxl", "sd3", "wan", "dream", "llada"), "a diffusion model"),
}
"""Architectures of GGUF files that are no text models."""


def find_class(source: str, kwargs: Mapping[str, Any]) -> Any:
    """The auto class of transformers that loads a model as a text model.

    Args:
        source: A directory, or a name on the hub.
        kwargs: Keyword arguments of `from_pretrained`.

    Raises:
        ModelLoadError: It is no model that continues a text.
        Exception: Its configuration cannot be read.
    """
    folder = Path(source)
    if (folder / "model_index.json").is_file() and not (folder / "config.json").is_file():
        kind = _read_json(folder / "model_index.json").get("_class_name", "diffusers")
        raise _refusal(source, f"a diffusion pipeline ({kind})")
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return AutoModelForCausalLM  # it loads the base model and the adapter
    given = kwargs.get("config")
    for_config = {"trust_remote_code": False, **{k: kwargs[k] for k in _FOR_CONFIG if k in kwargs}}
    config = given or AutoConfig.from_pretrained(source, **for_config)
    remote = getattr(config, "auto_map", None) or {}
    for name in _AUTO:
        if name in remote:
            return getattr(transformers, name)
    if (kind := _other_kind(config)) is not None:
        names = ", ".join(_architectures(config)) or getattr(config, "model_type", "")
        raise _refusal(source, f"{kind} ({names})")
    for auto in (getattr(transformers, name) for name in _AUTO):
        if type(config) in auto._model_mapping:
            return auto
    return AutoModelForCausalLM  # its error says which types there are


def _refusal(source: str, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"The model {source!r} is {what}; the engine runs models that continue a text: causal language models, and "
        "vision-language models without their images."
    )


def _architectures(config: Any) -> list[str]:
    return list(getattr(config, "architectures", None) or ())


def _other_kind(config: Any) -> str | None:
    """The kind of a model that continues no text; None if it does, or if nobody knows."""
    for name in _architectures(config):
        for pattern, kind in _HEADS:
            if re.search(pattern, name):
                return kind
    if getattr(config, "is_encoder_decoder", False) and not any("CausalLM" in name for name in _architectures(config)):
        return "an encoder-decoder"
    model_type = getattr(config, "model_type", "")
    if not _writes_text(config):
        found = (kind for name, kind in _MAPPINGS if model_type in _names(name))
        # Without a class's name it may be a type that only transformers knows: its own error says more.
        return next(found, "no text model" if _architectures(config) else None)
    if not any(name.endswith("Model") and not name.endswith("HeadModel") for name in _architectures(config)):
        return None
    if model_type in _names("MASKED_LM") and not getattr(config, "is_decoder", False):
        return "an encoder"
    tied = getattr(config.get_text_config(), "tie_word_embeddings", True)
    return None if tied else "a model without the layer that writes text"


def _writes_text(config: Any) -> bool:
    return any(type(config) in getattr(transformers, name)._model_mapping for name in _AUTO)


def _names(mapping: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES", {})
    return found


# --- the files themselves -----------------------------------------------------------------------------


def check_gguf(path: Path) -> bool | None:
    """Whether a GGUF file has a chat template; None if its metadata cannot be read.

    Raises:
        ModelLoadError: The file is no text model, or a part of one.
    """
    try:
        found = _gguf_texts(path)
    except (OSError, ValueError, KeyError, IndexError, struct.error):
        return None  # the conversion will say what is wrong
    architecture = found.get("general.architecture", "")
    if (kind := _GGUF_OTHERS.get(architecture)) is not None:
        raise _refusal(path.name, f"{kind} ({architecture})")
    if (parts := found.get(_SPLIT, "1")) not in ("0", "1"):
        # transformers reads one file, and would make up the weights of the others.
        raise ModelLoadError(
            f"The model {path.name!r} is one of {parts} parts of a split GGUF file: join them first, with "
            "`llama-gguf-split --merge FIRST-PART WHOLE.gguf`, and load the whole file."
        )
    return "tokenizer.chat_template" in found


_GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the fixed types of GGUF. Type 8 is a string, type 9 an array."""

_SPLIT = "split.count"
"""The metadata with the number of files that a model is split into."""


def _gguf_texts(path: Path) -> dict[str, str]:
    """The strings in the metadata of a GGUF file, and the number of its parts.

    The package gguf takes seconds for it: it reads every token, too.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF" or struct.unpack_from("<I", data, 4)[0] not in (2, 3):
            raise ValueError("another format")
        at, found = 24, {}
        for _ in range(struct.unpack_from("<Q", data, 16)[0]):
            key, at = _gguf_string(data, at)
            kind, at = struct.unpack_from("<I", data, at)[0], at + 4
            if kind == 8:
                found[key], at = _gguf_string(data, at)
            else:
                end = _after_gguf_value(data, at, kind)
                if key == _SPLIT:
                    found[key] = str(int.from_bytes(data[at:end], "little"))
                at = end
        return found


def _gguf_string(data: mmap.mmap, at: int) -> tuple[str, int]:
    begin = at + 8
    end = begin + struct.unpack_from("<Q", data, at)[0]
    return data[begin:end].decode("utf-8", "replace"), end


def _after_gguf_value(data: mmap.mmap, at: int, kind: int) -> int:
    if kind != 9:
        return at + _GGUF_SIZES[kind]
    kind, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind not in (8, 9):
        return at + _GGUF_SIZES[kind] * int(count)
    for _ in range(count):
        at = at + 8 + struct.unpack_from("<Q", data, at)[0] if kind == 8 else _after_gguf_value(data, at, kind)
    return at


def stored_template(folder: Path) -> bool:
    """Whether a model's directory has a chat template."""
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    if (folder / "additional_chat_templates").is_dir():
        return True
    files = ("tokenizer_config.json", "processor_config.json")
    return any(_read_json(folder / name).get("chat_template") for name in files)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
