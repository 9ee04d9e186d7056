"""The keyword arguments of the engine, as type checkers see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, TypedDict

import torch

from skeleton_of_thought.local.codec import SplitTokens, Tools
from skeleton_of_thought.local.generation import GenerationOverrides
from skeleton_of_thought.local.grammar import Grammar
from skeleton_of_thought.local.runner import Optimize
from skeleton_of_thought.local.sampling import LogitsProcessor

__all__ = ["DecodingSettings", "EngineSettings", "LoadingSettings"]


class EngineSettings(TypedDict, total=False):
    """The settings of an engine, which the docstring of `LocalEngine` explains."""

    max_batch_size: int
    prefix_cache_tokens: int
    kv_memory: int | float
    prefill_chunk: int
    share_prefix: bool
    optimize: Optimize
    chat_template_kwargs: Mapping[str, Any] | None
    generation_config: GenerationOverrides
    use_checkpoint_sampling: bool
    split_special_tokens: bool


class LoadingSettings(EngineSettings, total=False):
    """The keyword arguments of `LocalEngine.from_pretrained`.

    The settings of the engine, `dtype`, `device` and `progress` as its docstring explains them, and common keyword
    arguments of transformers' `from_pretrained`. The engine passes on the rare ones of transformers, too; type checkers
    accept those from a `dict[str, Any]`, unpacked with `**`.
    """

    dtype: str | torch.dtype | Mapping[str, Any] | None
    device: str | int | torch.device | None
    progress: Callable[[str], None] | None

    attn_implementation: str | Mapping[str, str] | None
    cache_dir: str | PathLike[str] | None
    config: Any
    device_map: Any
    force_download: bool
    key_mapping: Mapping[str, str] | None
    local_files_only: bool
    max_memory: Mapping[Any, int | str] | None
    offload_folder: str | PathLike[str] | None
    quantization_config: Any
    revision: str
    subfolder: str
    token: str | bool | None
    tp_plan: str | Mapping[str, str] | None
    trust_remote_code: bool
    use_safetensors: bool | None
    variant: str | None


class DecodingSettings(TypedDict, total=False):
    """The keyword arguments of a request to the engine. None, or leaving one out, stands for the default.

    `prefill` is a start of the answer that the model continues; the text does not repeat it. `tools` are descriptions
    of functions that the model may call, for models whose chat template shows them. `generation_config` holds values
    that replace those of the model's generation config, by name, or is a `GenerationConfig` or `"ignore"`.
    `split_special_tokens` replaces the engine's setting, or lists texts in which no special token is read. The others
    are the fields of `SamplingParams`, which explains them. They come before all generation configs.
    """

    max_new_tokens: int | None
    min_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    frequency_penalty: float
    presence_penalty: float
    no_repeat_ngram_size: int | None
    bad_words_ids: Sequence[Sequence[int]] | None
    suppress_tokens: Sequence[int] | None
    begin_suppress_tokens: Sequence[int] | None
    sequence_bias: Mapping[tuple[int, ...], float] | Sequence[Any] | None
    logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None
    seed: int | None
    stop: str | Sequence[str] | None
    stop_after_text: str | Sequence[str]
    stop_token_ids: Sequence[int]
    max_time: float | None
    ignore_eos: bool
    grammar: Grammar | None
    skip_special_tokens: bool
    generation_config: GenerationOverrides
    prefill: str
    tools: Tools
    split_special_tokens: SplitTokens
