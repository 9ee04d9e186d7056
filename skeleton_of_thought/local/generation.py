"""Generation configs of transformers as settings of an engine: the checkpoint's own, and those given to `generate`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any, Literal

from skeleton_of_thought.errors import InvalidInput, PromptTooLong
from skeleton_of_thought.local.sampling import SamplingParams, as_integer

__all__ = [
    "FURTHER",
    "GenerationDefaults",
    "GenerationOverrides",
    "configured_limit",
    "fit_settings",
    "read_generation",
    "request_config",
    "sampling_settings",
    "settings_of",
]

_logger = logging.getLogger(__name__)

GenerationOverrides = Mapping[str, Any] | Literal["ignore"] | Any
"""Values of a generation config by name (None for no such setting), a `GenerationConfig`, or `"ignore"`."""

_NAMED = frozenset(
    {"repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"}
    | {"sequence_bias", "max_time"}
)
"""Settings that `SamplingParams` has under the same name."""

_LENGTHS = frozenset({"max_new_tokens", "max_length", "min_new_tokens", "min_length", "stop_strings", "eos_token_id"})

_WARPERS = frozenset({"top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})

_SAMPLED = frozenset({"do_sample", "temperature", "top_k", "top_p", "min_p", *_WARPERS})
"""Settings without effect on greedy decoding."""

FURTHER = _WARPERS | {
    *("encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "forced_bos_token_id", "forced_eos_token_id"),
    *("remove_invalid_values", "exponential_decay_length_penalty", "watermarking_config"),
}
"""Settings that `SamplingParams` keeps in its `generation_config`."""

_HONOURED = _NAMED | _LENGTHS | _SAMPLED | FURTHER
"""Settings of a generation config that an engine follows."""

_REFUSED: dict[str, Any] = {
    **dict.fromkeys(("constraints", "force_words_ids", "penalty_alpha", "dola_layers", "token_healing")),
    **{"num_beams": 1, "guidance_scale": 1},
}
"""Settings by which `generate` writes another text, and which an engine does not have, with values without effect."""

_WITHOUT_EFFECT = frozenset(
    # How `generate` runs; tokens for padding; outputs besides text; settings of beams and assistants, which only work
    # together with settings that are checked; the number of sequences, since adopted classes return the first only.
    # Assisted decoding chooses the same tokens, and normalised logits have the same order.
    {"pad_token_id", "bos_token_id", "decoder_start_token_id", "transformers_version", "use_cache", "cache_config"}
    | {"cache_implementation", "max_cache_len", "compile_config", "disable_compile", "prefill_chunk_size", "low_memory"}
    | {"output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"}
    | {"renormalize_logits", "early_stopping", "length_penalty", "num_return_sequences"}
    | {"num_beam_groups", "diversity_penalty", "use_mtp", "prompt_lookup_num_tokens", "assistant_early_exit"}
    | {"is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"}
    | {"assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight", "max_matching_ngram_size"}
    | {"speculation_type", "continuous_batching_config", "trust_remote_code"}
)


# --- the checkpoint's own config ---


class GenerationDefaults:
    """The settings of a model's generation config, as defaults of requests. Read with each request: users change it.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        overrides: Values that replace the config's.
        sampling: Whether the config's settings for sampling are defaults, too.

    Raises:
        InvalidInput: An override has an unknown name, or is one that an engine does not have.
    """

    def __init__(self, model: Any, tokenizer: Any, overrides: GenerationOverrides, sampling: bool) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._ignore = isinstance(overrides, str)
        self._overrides = _by_name(overrides)
        self._sampling = sampling
        if sampling and self._ignore:
            raise InvalidInput("use_checkpoint_sampling=True and generation_config='ignore' contradict each other.")
        _refuse(self._overrides)

    def read(self, overrides: GenerationOverrides = None) -> dict[str, Any]:
        """The present settings, by name; those that are None are left out.

        Args:
            overrides: Values of one request, which replace all others.

        Raises:
            InvalidInput: A setting is one that an engine does not have. The message has its name, and what to do.
        """
        own = getattr(self._model, "generation_config", None)
        ignore = self._ignore or isinstance(overrides, str)
        names = _LENGTHS - {"min_new_tokens", "min_length", "stop_strings"} if ignore else _HONOURED | _REFUSED.keys()
        if not self._sampling:
            names = names - _SAMPLED
        values = {name: getattr(own, name, None) for name in names}
        if own is not None and not ignore:
            _warn_of_strangers(own)
        values |= self._overrides
        values |= _by_name(overrides)
        _refuse(values)
        return {name: value for name, value in values.items() if value is not None}

    def own_eos_ids(self, values: Mapping[str, Any] | None = None) -> frozenset[int]:
        """The tokens that end a text for `generate`.

        Args:
            values: The settings of a request, as `read` returns them; None for the model's.
        """
        if values is None:
            generation = getattr(self._model, "generation_config", None)
            values = {"eos_token_id": getattr(generation, "eos_token_id", None), **self._overrides}
        # The generation config overrules the model's config.
        own = values.get("eos_token_id")
        return frozenset(_ids(own if own is not None else getattr(self._model.config, "eos_token_id", None)))

    def eos_ids(self, values: Mapping[str, Any] | None = None) -> frozenset[int]:
        """The tokens that end a text here: the tokenizer's end, too, since either may lack the end of a turn."""
        return self.own_eos_ids(values) | _ids(getattr(self._tokenizer, "eos_token_id", None))


def settings_of(values: Mapping[str, Any], given: Mapping[str, Any], prompt: int) -> SamplingParams:
    """The settings of one request.

    Args:
        values: The generation config's, as `GenerationDefaults.read` returns them.
        given: The request's, which overrule them.
        prompt: The length of the prompt, in tokens.

    Raises:
        InvalidInput: A value is out of its range.
    """
    fields = {name: values[name] for name in _NAMED & values.keys()}
    if values.get("stop_strings"):
        fields["stop"] = values["stop_strings"]
    if given.get("grammar") is None:  # else the grammar decides when the text may end
        least = values.get("min_new_tokens")
        fields["min_new_tokens"] = max(0, values.get("min_length", 0) - prompt) if least is None else least
    fields |= {name: values[name] for name in ("top_k", "top_p", "min_p") if name in values}
    if values.get("do_sample"):
        # The defaults of `generate`.
        fields = {"top_k": 50, **fields, "temperature": values.get("temperature", 1.0)}
    further = {name: values[name] for name in FURTHER & values.keys()}
    try:
        return SamplingParams(**{**fields, **given, "generation_config": further})
    except InvalidInput as error:
        SamplingParams(**given)  # raises the same error if it is the request's
        raise InvalidInput(f"The model's generation_config cannot be followed: {error}{_WAY_OUT}") from error


def configured_limit(values: Mapping[str, Any], prompt: int) -> int | None:
    """The most tokens to generate by a generation config; None where it has no limit.

    Args:
        values: The config, as `GenerationDefaults.read` returns it.
        prompt: The length of the prompt, in tokens.

    Raises:
        PromptTooLong: The prompt has as many tokens as the whole text may have.
    """
    if (limit := values.get("max_new_tokens")) is not None:
        return as_integer("max_new_tokens of the model's generation_config", limit, 1)
    if (total := values.get("max_length")) is None:
        return None
    if prompt >= total:
        raise PromptTooLong(
            f"The prompt has {prompt} tokens, and max_length={total} of the model's generation_config includes them: "
            "give max_new_tokens, or shorten the prompt."
        )
    return int(total) - prompt


_WAY_OUT = (
    " Other values can be given to the engine, as in LocalEngine(..., generation_config={'NAME': None}), or with "
    "generation_config='ignore'; ChatTransformers and TransformersLLM take generation_config, too."
)


def _by_name(given: GenerationOverrides) -> dict[str, Any]:
    """Overrides as a dict.

    Raises:
        InvalidInput: They are none, or have a name that no generation config has.
    """
    if given is None or (isinstance(given, str) and given == "ignore"):
        return {}
    if isinstance(given, Mapping):
        if unknown := sorted(map(str, given.keys() - _HONOURED - _REFUSED.keys() - _WITHOUT_EFFECT)):
            raise InvalidInput(f"generation_config has {', '.join(unknown)}, which an engine does not know.")
        return dict(given)
    if not hasattr(given, "to_diff_dict"):
        raise InvalidInput(
            f"generation_config is {given!r:.80}; it must be a dict of values by their names, a GenerationConfig of "
            "transformers, or 'ignore'."
        )
    config: Any = given
    plain = type(config)()
    return {
        name: value
        for name, value in vars(config).items()
        if name in _HONOURED | _REFUSED.keys() and value is not None and value != getattr(plain, name, None)
    }


def _refuse(values: Mapping[str, Any]) -> None:
    for name, neutral in _REFUSED.items():
        value = values.get(name)
        if not value or value == neutral:
            continue
        raise InvalidInput(
            f"The model's generation_config has {name}={value!r:.60}, which changes what model.generate writes, and "
            f"which the local engine does not support. To decode without it: LocalEngine(..., "
            f"generation_config={{{name!r}: None}}), or generation_config='ignore' to follow none of these settings; "
            f"requests, ChatTransformers and TransformersLLM take generation_config, too."
        )


def _warn_of_strangers(config: Any) -> None:
    """Logs the settings that this version does not know, once each."""
    kind: Any = type(config)
    for name, neutral in _strangers(kind).items():
        value = getattr(config, name, None)
        if value is not None and value != neutral:
            _warn_of(name, f"{value!r:.60}")


@functools.lru_cache(maxsize=8)
def _strangers(kind: Any) -> dict[str, Any]:
    # Entries that a new config lacks come from the model's author; transformers ignores them, too.
    known = _HONOURED | _REFUSED.keys() | _WITHOUT_EFFECT
    plain = vars(kind()) if hasattr(kind, "to_diff_dict") else {}
    return {name: value for name, value in plain.items() if name not in known and not name.startswith("_")}


@functools.lru_cache(maxsize=64)
def _warn_of(name: str, value: str) -> None:
    _logger.warning("The local engine does not know %s=%s of the model's generation_config: it is ignored", name, value)


# --- configs given to `generate` ---


def read_generation(model: Any, tokenizer: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The generation config that `model.generate` would use for these keyword arguments, as a dict.

    Args:
        model: A `PreTrainedModel`.
        tokenizer: Its tokenizer.
        given: Keyword arguments of `generate`, which may include `generation_config` and `logits_processor`.

    Returns:
        The settings by name, and `logits_processor`, the caller's own processors.

    Raises:
        InvalidInput: `generate` would follow a setting that an engine does not have.
    """
    if not any(cls.__name__ == "PreTrainedModel" for cls in type(model).__mro__):
        raise InvalidInput(f"{type(model).__name__} is no model of transformers.")
    kwargs = dict(given)
    config, rest = model._prepare_generation_config(kwargs.pop("generation_config", None), **kwargs)
    own = rest.pop("logits_processor", None)
    if strange := sorted(name for name, value in rest.items() if value is not None and name != "tokenizer"):
        raise InvalidInput(f"It passes {', '.join(strange)} to generate, which the local engine does not support.")
    _check(config)
    # `generate` shows the text of an end token that is not special; an engine shows that of none.
    known = _ids(getattr(model.generation_config, "eos_token_id", None)) or _ids(
        getattr(model.config, "eos_token_id", None)
    )
    known |= _ids(getattr(tokenizer, "eos_token_id", None))
    if strange_ids := sorted(_ids(config.eos_token_id) - known):
        raise InvalidInput(
            f"It also ends texts at the tokens {strange_ids}: put eos_token_id into model.generation_config."
        )
    return {**vars(config), "logits_processor": list(own or ())}


def _check(config: Any) -> None:
    plain = type(config)()
    neutral = {**vars(plain)}
    if hasattr(plain, "_get_default_generation_params"):
        neutral |= plain._get_default_generation_params()
    skipped = _HONOURED | _WITHOUT_EFFECT
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
        `max_tokens`, `temperature`, `top_k`, `top_p` and `stop`, where they have an effect; and those of the others
        that have a name in `SamplingParams`. `request_config` has all others, too.
    """
    limit = given.get("max_new_tokens")
    settings: dict[str, Any] = {"max_tokens": limit if limit is not None else given["max_length"], "temperature": 0.0}
    further: dict[str, Any] = {}
    if given.get("do_sample"):
        settings["temperature"] = float(_either(given.get("temperature"), 1.0))
        settings["top_k"] = int(_either(given.get("top_k"), 0))
        settings["top_p"] = float(_either(given.get("top_p"), 1.0))
        if min_p := given.get("min_p"):
            further["min_p"] = float(min_p)
    if stop := given.get("stop_strings"):
        settings["stop"] = [stop] if isinstance(stop, str) else list(stop)
    penalty = _either(given.get("repetition_penalty"), 1.0)
    if penalty != 1.0:
        further["repetition_penalty"] = float(penalty)
    if processors := given.get("logits_processor"):
        further["logits_processor"] = processors
    return settings, further


def request_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that neither `sampling_settings` nor lengths cover, as the `generation_config` of a request.

    Complete, so that nothing of the model's own config comes through.

    Args:
        given: The config, as `read_generation` returns it.
    """
    names = _HONOURED - {"do_sample", "temperature", "top_k", "top_p", "max_new_tokens", "max_length"}
    if not given.get("do_sample"):
        names -= _SAMPLED
    return {name: given.get(name) for name in sorted(names)}


def fit_settings(settings: Mapping[str, Any], used: int, *windows: int | None) -> dict[str, Any]:
    """A request's settings, with its limits lowered to the tokens that fit.

    `generate` accepts a higher limit and stops at the end of the window; an engine refuses it.

    Args:
        settings: The settings, with `max_new_tokens`.
        used: Tokens of the prompt.
        windows: Limits for prompt and completion together, in tokens; None for no limit.
    """
    wanted = settings["max_new_tokens"]
    room = min((window - used for window in windows if window is not None), default=wanted)
    limit = max(1, min(wanted, room))
    least = settings.get("min_new_tokens")
    return {**settings, "max_new_tokens": limit} | ({} if least is None else {"min_new_tokens": min(least, limit)})


def _either(value: Any, default: Any) -> Any:
    return default if value is None else value
