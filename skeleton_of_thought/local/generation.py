"""Generation settings of transformers as settings of an engine, for adopting what others have configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skeleton_of_thought.errors import InvalidInput

__all__ = ["fit_settings", "read_generation", "sampling_settings"]

_HONOURED = frozenset(
    {"max_new_tokens", "max_length", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p"}
    | {"repetition_penalty", "stop_strings", "eos_token_id"}
)
"""Settings of a generation config that an engine has, too."""

_SAMPLED = frozenset({"min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})
"""Settings that do nothing without sampling."""

_WITHOUT_EFFECT = frozenset(
    # How the work is done; which tokens pad; what is returned besides text; what only counts with beams or an
    # assistant (which are looked at by themselves); more than one sequence, of which adopted classes take the first.
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
        given: Keyword arguments of `generate`, `generation_config` among them.

    Raises:
        InvalidInput: `generate` would do something that an engine does not.
    """
    if not any(cls.__name__ == "PreTrainedModel" for cls in type(model).__mro__):
        raise InvalidInput(f"{type(model).__name__} is no model of transformers.")
    kwargs = dict(given)
    config, rest = model._prepare_generation_config(kwargs.pop("generation_config", None), **kwargs)
    if strange := sorted(name for name, value in rest.items() if value is not None and name != "tokenizer"):
        raise InvalidInput(f"An engine does not know {', '.join(strange)}, which it would generate with.")
    _check(config)
    known = _ids(getattr(model.generation_config, "eos_token_id", None)) or _ids(
        getattr(model.config, "eos_token_id", None)
    )
    known |= _ids(getattr(tokenizer, "eos_token_id", None))
    if strange_ids := sorted(_ids(config.eos_token_id) - known):
        raise InvalidInput(f"It also ends at the tokens {strange_ids}: put eos_token_id into model.generation_config.")
    return dict(vars(config))


def _check(config: Any) -> None:
    plain = type(config)()
    neutral = {**vars(plain)}
    if hasattr(plain, "_get_default_generation_params"):
        neutral |= plain._get_default_generation_params()
    skipped = _HONOURED | _WITHOUT_EFFECT | (frozenset() if config.do_sample else _SAMPLED)
    for name, value in vars(config).items():
        # What a config does not have by itself is an entry of some model's author, which transformers passes over.
        if name.startswith("_") or name in skipped or name not in neutral:
            continue
        if value and value != neutral[name]:
            raise InvalidInput(f"An engine has no {name}={value!r:.60}.")
    if config.max_new_tokens is None and config.max_length is None:
        raise InvalidInput("It has neither max_new_tokens nor max_length.")


def _ids(value: Any) -> set[int]:
    if value is None:
        return set()
    return {int(item) for item in value} if isinstance(value, list | tuple | set) else {int(value)}


def sampling_settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an engine is to be told for a generation config: first what chat models have as settings, too.

    Args:
        given: As `read_generation` gives it.

    Returns:
        `max_tokens`, `temperature`, `top_k`, `top_p` and `stop`, as far as they matter; and `repetition_penalty`.
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
    """Settings of a request that ask for no more tokens than fit.

    `generate` may be asked for more than fits, and stops where the window ends; an engine would refuse.

    Args:
        settings: With `max_new_tokens` and `min_new_tokens`.
        used: Tokens of the prompt.
        windows: What prompt and completion may have together; None for no limit.
    """
    wanted = settings["max_new_tokens"]
    room = min((window - used for window in windows if window is not None), default=wanted)
    limit = max(1, min(wanted, room))
    return {**settings, "max_new_tokens": limit, "min_new_tokens": min(settings["min_new_tokens"], limit)}


def _either(value: Any, default: Any) -> Any:
    return default if value is None else value
