"""Generation configs of transformers as settings of an engine, for models that are configured for `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skeleton_of_thought.errors import InvalidInput

__all__ = ["fit_settings", "read_generation", "sampling_settings"]

_HONOURED = frozenset(
    {"max_new_tokens", "max_length", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p"}
    | {"repetition_penalty", "stop_strings", "eos_token_id"}
)
"""Settings of a generation config that an engine follows."""

_SAMPLED = frozenset({"min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})
"""Settings without effect on greedy decoding."""

_WITHOUT_EFFECT = frozenset(
    # How `generate` runs; tokens for padding; outputs besides text; settings of beams and assistants, which only work
    # together with settings that are checked; the number of sequences, since adopted classes return the first only.
    {"pad_token_id", "bos_token_id", "decoder_start_token_id", "transformers_version", "use_cache", "cache_config"}
    | {"cache_implementation", "max_cache_len", "compile_config", "disable_compile", "prefill_chunk_size", "low_memory"}
    | {"output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"}
    | {"renormalize_logits", "remove_invalid_values", "early_stopping", "length_penalty", "num_return_sequences"}
    | {"is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"}
    | {"assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight", "max_matching_ngram_size"}
    | {"speculation_type", "continuous_batching_config", "trust_remote_code"}
)


def read_generation(model: Any, tokenizer: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The generation config that `model.generate` would use for these keyword arguments, as a dict.

    Args:
        model: A `PreTrainedModel`.
        tokenizer: Its tokenizer.
        given: Keyword arguments of `generate`, which may include `generation_config`.

    Raises:
        InvalidInput: `generate` would follow a setting that an engine does not have.
    """
    if not any(cls.__name__ == "PreTrainedModel" for cls in type(model).__mro__):
        raise InvalidInput(f"{type(model).__name__} is no model of transformers.")
    kwargs = dict(given)
    config, rest = model._prepare_generation_config(kwargs.pop("generation_config", None), **kwargs)
    if strange := sorted(name for name, value in rest.items() if value is not None and name != "tokenizer"):
        raise InvalidInput(f"It passes {', '.join(strange)} to generate, which the local engine does not support.")
    _check(config)
    known = _ids(getattr(model.generation_config, "eos_token_id", None)) or _ids(
        getattr(model.config, "eos_token_id", None)
    )
    known |= _ids(getattr(tokenizer, "eos_token_id", None))
    if strange_ids := sorted(_ids(config.eos_token_id) - known):
        raise InvalidInput(
            f"It also ends texts at the tokens {strange_ids}: put eos_token_id into model.generation_config."
        )
    return dict(vars(config))


def _check(config: Any) -> None:
    plain = type(config)()
    neutral = {**vars(plain)}
    if hasattr(plain, "_get_default_generation_params"):
        neutral |= plain._get_default_generation_params()
    skipped = _HONOURED | _WITHOUT_EFFECT | (frozenset() if config.do_sample else _SAMPLED)
    for name, value in vars(config).items():
        # Entries that a new config lacks come from the model's author; transformers ignores them too.
        if name.startswith("_") or name in skipped or name not in neutral:
            continue
        if value and value != neutral[name]:
            raise InvalidInput(f"It generates with {name}={value!r:.60}, which the local engine does not support.")
    if config.max_new_tokens is None and config.max_length is None:
        raise InvalidInput("It generates with neither max_new_tokens nor max_length.")


def _ids(value: Any) -> set[int]:
    if value is None:
        return set()
    return {int(item) for item in value} if isinstance(value, list | tuple | set) else {int(value)}


def sampling_settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A generation config as settings of a chat model, and the settings that only an engine has.

    Args:
        given: The config, as `read_generation` returns it.

    Returns:
        `max_tokens`, `temperature`, `top_k`, `top_p` and `stop`, where they have an effect; and `repetition_penalty`.
    """
    limit = given.get("max_new_tokens")
    settings: dict[str, Any] = {"max_tokens": limit if limit is not None else given["max_length"], "temperature": 0.0}
    if given.get("do_sample"):
        settings["temperature"] = float(_either(given.get("temperature"), 1.0))
        settings["top_k"] = int(_either(given.get("top_k"), 0))
        settings["top_p"] = float(_either(given.get("top_p"), 1.0))
    if stop := given.get("stop_strings"):
        settings["stop"] = [stop] if isinstance(stop, str) else list(stop)
    penalty = _either(given.get("repetition_penalty"), 1.0)
    return settings, {} if penalty == 1.0 else {"repetition_penalty": float(penalty)}


def fit_settings(settings: Mapping[str, Any], used: int, *windows: int | None) -> dict[str, Any]:
    """A request's settings, with its limits lowered to the tokens that fit.

    `generate` accepts a higher limit and stops at the end of the window; an engine refuses it.

    Args:
        settings: The settings, with `max_new_tokens` and `min_new_tokens`.
        used: Tokens of the prompt.
        windows: Limits for prompt and completion together, in tokens; None for no limit.
    """
    wanted = settings["max_new_tokens"]
    room = min((window - used for window in windows if window is not None), default=wanted)
    limit = max(1, min(wanted, room))
    return {**settings, "max_new_tokens": limit, "min_new_tokens": min(settings["min_new_tokens"], limit)}


def _either(value: Any, default: Any) -> Any:
    return default if value is None else value
