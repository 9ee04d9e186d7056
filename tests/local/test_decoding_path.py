"""The decoding path of a model is inferred, then checked by a trial run; a failed trial is logged as a warning."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from inspect import signature
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.cache_utils import Cache

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.decoding_path import cache_argument, plain_logits

PROMPTS = ["The small boat crossed the wide river", "Bread needs flour", "Why do leaves change their colour?"]
TOKENS = 12
_NAME = next(name for name in ("cache", "past_key_values") if name in signature(hf.LlamaForCausalLM.forward).parameters)
"""What this version of transformers calls the cache."""


class Plain(hf.LlamaForCausalLM):
    """A model of transformers; the subclasses change its forward."""

    def _run(self, input_ids: Any, **kwargs: Any) -> Any:
        return super().forward(input_ids=input_ids, **{k: value for k, value in kwargs.items() if value is not None})

    def _past(self, cache: Any) -> dict[str, Any]:
        return {_NAME: cache}


class Annotated(Plain):
    """A cache argument with a new name and a cache's annotation."""

    def forward(
        self, input_ids: Any = None, memory: Cache | None = None, attention_mask: Any = None, position_ids: Any = None,
        use_cache: bool = True, return_dict: bool = True,
    ) -> Any:  # fmt: skip
        return self._run(
            input_ids, **self._past(memory), attention_mask=attention_mask, position_ids=position_ids,
            use_cache=use_cache,
        )  # fmt: skip


class Unknown(Plain):
    """A cache argument with a new name and no annotation."""

    def forward(self, input_ids: Any = None, memory: Any = None, use_cache: bool = True, **kwargs: Any) -> Any:
        return self._run(input_ids, use_cache=False)


class Forgetful(Plain):
    """Takes a cache by a known name, and does not use it."""

    def forward(
        self, input_ids: Any = None, cache: Any = None, use_cache: bool = True, return_dict: bool = True
    ) -> Any:
        return self._run(input_ids, use_cache=False)


class Maskless(Plain):
    """Uses its cache but no mask: the shorter of two rows attends to slots that are not its own."""

    def forward(
        self, input_ids: Any = None, cache: Any = None, attention_mask: Any = None, use_cache: bool = True,
        return_dict: bool = True,
    ) -> Any:  # fmt: skip
        return self._run(input_ids, **self._past(cache), use_cache=use_cache)


class Usual(Plain):
    """Names the usual arguments, since the engine passes only arguments that a forward names."""

    def forward(
        self, input_ids: Any = None, cache: Any = None, attention_mask: Any = None, position_ids: Any = None,
        use_cache: bool = True, return_dict: bool = True,
    ) -> Any:  # fmt: skip
        self._check(input_ids, cache)
        out = self._run(
            input_ids, **self._past(cache), attention_mask=attention_mask, position_ids=position_ids,
            use_cache=use_cache,
        )  # fmt: skip
        out.logits = self._changed(out.logits)
        return out

    def _check(self, input_ids: Any, cache: Any) -> None:
        """Accepts everything."""

    def _changed(self, logits: Any) -> Any:
        return logits


class Failing(Usual):
    """Cannot take several rows."""

    def _check(self, input_ids: Any, cache: Any) -> None:
        if input_ids.shape[0] > 1:
            raise NotImplementedError("one row at a time, please")


class Drifting(Usual):
    """Its logits depend on the whole text of one forward, as in models that quantise all activations together."""

    def _changed(self, logits: Any) -> Any:
        return logits * (1 + 2e-3 * logits.shape[1])


class Forbidding(Usual):
    """Forbids some tokens, like models with padding or images in their vocabulary."""

    forbidden = -math.inf

    def _changed(self, logits: Any) -> Any:
        logits[..., 390:] = self.forbidden
        return logits


class ForbiddingByTheLeastNumber(Forbidding):
    """Forbids tokens by a number far below all logits."""

    forbidden = torch.finfo(torch.float32).min


class ForbiddingAndForgetful(ForbiddingByTheLeastNumber):
    """Forbids tokens and ignores its cache."""

    def _past(self, cache: Any) -> dict[str, Any]:
        return {}


class Bare(Plain):
    """Accepts only the arguments that it needs."""

    def forward(self, input_ids: Any, cache: Any = None, attention_mask: Any = None, position_ids: Any = None) -> Any:
        return self._run(
            input_ids, **self._past(cache), attention_mask=attention_mask, position_ids=position_ids,
            use_cache=cache is not None,
        )  # fmt: skip


class Empty(Plain):
    """Has NaN as logits."""

    def forward(
        self, input_ids: Any = None, cache: Any = None, use_cache: bool = True, return_dict: bool = True
    ) -> Any:
        out = self._run(input_ids, use_cache=False)
        out.logits = out.logits * math.nan
        return out


class Deaf(Usual):
    """Fails at the plain text of the trial, so that nothing can be compared."""

    def _check(self, input_ids: Any, cache: Any) -> None:
        if cache is None:
            raise RuntimeError("only with a cache")


def of(kind: type[Plain], llama: Any) -> Plain:
    """The tests' model as one of this class."""
    model = kind(llama.config).eval()
    model.load_state_dict(llama.state_dict())
    return model


def counted(model: Any) -> list[int]:
    """Records the rows of each forward from now on."""
    rows: list[int] = []

    def note(model: Any, args: Any, kwargs: Any) -> None:
        rows.append(kwargs["input_ids"].shape[0])

    model.register_forward_pre_hook(note, with_kwargs=True)
    return rows


def own_texts(llama: Any, tokenizer: Any, forbidden: Sequence[int] | None = None) -> list[tuple[int, ...]]:
    texts = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        out = llama.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS, min_new_tokens=TOKENS,
            suppress_tokens=forbidden,
        )  # fmt: skip
        texts.append(tuple(out[0, ids.shape[1] :].tolist()))
    return texts


def decoded(engine: LocalEngine) -> list[tuple[int, ...]]:
    return [c.token_ids for c in engine.generate(PROMPTS, max_new_tokens=TOKENS, min_new_tokens=TOKENS)]


PATHS = {
    Plain: ("batched", ""),
    Annotated: ("batched", ""),
    Drifting: ("batched", ""),
    Forbidding: ("batched", ""),
    ForbiddingByTheLeastNumber: ("batched", ""),
    ForbiddingAndForgetful: ("none", "its logits differ from those of the whole text"),
    Maskless: ("separate", "its logits differ from those of the whole text"),
    Failing: ("separate", "fails with NotImplementedError: one row at a time, please"),
    Forgetful: ("none", "its logits differ from those of the whole text"),
    Unknown: ("none", "takes no cache (its arguments: input_ids, memory, use_cache, kwargs)"),
}
OPTIMIZATION = {"batched": "none", "separate": "unbatched", "none": "uncached"}


@pytest.mark.parametrize("kind", PATHS)
def test_a_model_gets_the_fastest_path_with_its_own_text(
    kind: type[Plain], llama: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path, reason = PATHS[kind]
    model = of(kind, llama)
    with caplog.at_level(logging.WARNING), LocalEngine(model, tokenizer, optimize="none") as engine:
        assert (engine.stats().cache_kind, engine.optimization) == (path, OPTIMIZATION[path])
        assert reason in engine.stats().reason
        assert (engine.stats().reason == "") == (path == "batched")
        forbidden = list(range(390, 400)) if issubclass(kind, Forbidding) else None
        assert decoded(engine) == own_texts(llama, tokenizer, forbidden)
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if path == "batched":
        assert messages == []
    else:
        assert len(messages) == 1
        assert messages[0].startswith(f"{kind.__name__} decodes its rows one after another")
        assert reason in messages[0]
        assert ("runs the whole text for each token" in messages[0]) == (path == "none")
        # A model without a cache argument is not our fault; a failed trial may be.
        assert ("please report it" in messages[0]) == (kind is not Unknown)


@pytest.mark.parametrize("kind", [Plain, Annotated])
def test_rows_of_a_batched_model_share_their_forwards(kind: type[Plain], llama: Any, tokenizer: Any) -> None:
    model = of(kind, llama)
    rows = counted(model)
    with LocalEngine(model, tokenizer, optimize="none") as engine:
        del rows[:]
        engine.generate(["Boat", "Moon", "Wind", "Rain"], max_new_tokens=TOKENS, min_new_tokens=TOKENS)
        assert engine.stats().peak_batch_size == max(rows) == 4
        assert len(rows) < 2 * TOKENS


def test_the_trial_is_a_few_short_forwards(llama: Any, tokenizer: Any) -> None:
    model = of(Plain, llama)
    rows = counted(model)
    with LocalEngine(model, tokenizer, optimize="none"):
        assert rows == [1, 1, 1, 1, 3, 3, 3, 3, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [Plain, Annotated, Maskless, Forgetful, Failing, Forbidding])
def test_low_precision_hides_no_fault(kind: type[Plain], dtype: torch.dtype, llama: Any, tokenizer: Any) -> None:
    with LocalEngine(of(kind, llama).to(dtype), tokenizer, optimize="none") as engine:
        assert engine.stats().cache_kind == PATHS[kind][0]


@pytest.mark.parametrize(
    ("kind", "why"), [(Deaf, "fails with RuntimeError: only with a cache"), (Empty, "its logits are not numbers")]
)
def test_rows_of_a_model_without_a_trial_run_by_themselves_on_its_own_cache(
    kind: type[Plain], why: str, llama: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), LocalEngine(of(kind, llama), tokenizer) as engine:
        assert engine.stats().cache_kind == "separate"
        assert why in engine.stats().reason
        if kind is Deaf:
            assert decoded(engine) == own_texts(llama, tokenizer)
    assert why in caplog.text


class Counting(Plain):
    """Takes no positions: it counts from the cache's length, as decoders of translation models do."""

    def forward(
        self, input_ids: Any = None, cache: Any = None, attention_mask: Any = None, use_cache: bool = True,
        return_dict: bool = True,
    ) -> Any:  # fmt: skip
        return self._run(input_ids, **self._past(cache), attention_mask=attention_mask, use_cache=use_cache)


class Placed(Plain):
    """The usual arguments, after a change of the positions and the mask."""

    def forward(
        self, input_ids: Any = None, cache: Any = None, attention_mask: Any = None, position_ids: Any = None,
        use_cache: bool = True, return_dict: bool = True,
    ) -> Any:  # fmt: skip
        mask, positions = self._placed(input_ids, attention_mask, position_ids)
        return self._run(
            input_ids, **self._past(cache), attention_mask=mask, position_ids=positions, use_cache=use_cache
        )

    def _placed(self, ids: Any, mask: Any, positions: Any) -> tuple[Any, Any]:
        return mask, positions


class Heedless(Placed):
    """Takes positions and ignores them."""

    def _placed(self, ids: Any, mask: Any, positions: Any) -> tuple[Any, Any]:
        return mask, None


class HeedlessOfSingleTokens(Placed):
    """Uses positions of prompts only."""

    def _placed(self, ids: Any, mask: Any, positions: Any) -> tuple[Any, Any]:
        return mask, positions if ids.shape[1] > 1 else None


class OfOneRow(Placed):
    """Uses the positions of its first row for all rows, as some code with a table of rotations does."""

    def _placed(self, ids: Any, mask: Any, positions: Any) -> tuple[Any, Any]:
        return mask, None if positions is None else positions[:1].expand(ids.shape[0], -1)


class MaskOfOneRow(Placed):
    """Uses the mask of its first row for all rows."""

    def _placed(self, ids: Any, mask: Any, positions: Any) -> tuple[Any, Any]:
        return None if mask is None else mask[:1].expand(ids.shape[0], -1), positions


class LateMask(Placed):
    """Hides one slot too many of padded rows."""

    def _placed(self, ids: Any, mask: Any, positions: Any) -> tuple[Any, Any]:
        if mask is None:
            return None, positions
        return mask * torch.cat((mask[:, :1], mask[:, :-1]), 1), positions


class CountingTheMask(Counting):
    """Takes no positions, and counts them from the mask: right in any batch."""

    def forward(
        self, input_ids: Any = None, cache: Any = None, attention_mask: Any = None, use_cache: bool = True,
        return_dict: bool = True,
    ) -> Any:  # fmt: skip
        positions = None if attention_mask is None else (attention_mask.cumsum(1) - 1)[:, -input_ids.shape[1] :]
        return self._run(
            input_ids, **self._past(cache), attention_mask=attention_mask, position_ids=positions, use_cache=use_cache
        )


MISPLACED = (Counting, Heedless, HeedlessOfSingleTokens, OfOneRow, MaskOfOneRow, LateMask)


@pytest.mark.parametrize("weights", [1.0, 0.1], ids=["lively weights", "small weights"])
@pytest.mark.parametrize("kind", MISPLACED)
def test_a_model_that_misplaces_shorter_rows_is_not_batched(
    kind: type[Plain], weights: float, llama: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model, plain = of(kind, llama), of(Plain, llama)
    with torch.no_grad():
        for one in (model, plain):
            for part in one.parameters():
                if part.dim() > 1:
                    part.mul_(weights)
    with LocalEngine(model, tokenizer) as engine:
        assert engine.stats().cache_kind == "separate"
        assert "in a batch its logits differ" in engine.stats().reason
        assert "please report" in caplog.text
        if weights == 1.0:
            assert decoded(engine) == own_texts(plain, tokenizer)
    with LocalEngine(plain, tokenizer, optimize="none") as engine:
        assert engine.stats().cache_kind == "batched"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", MISPLACED)
def test_low_precision_hides_no_misplaced_rows(
    kind: type[Plain], dtype: torch.dtype, llama: Any, tokenizer: Any
) -> None:
    with LocalEngine(of(kind, llama).to(dtype), tokenizer, optimize="none") as engine:
        assert engine.stats().cache_kind == "separate"


def test_a_model_that_counts_positions_by_the_mask_is_batched(llama: Any, tokenizer: Any) -> None:
    with LocalEngine(of(CountingTheMask, llama), tokenizer) as engine:
        assert engine.stats().cache_kind == "batched"
        assert decoded(engine) == own_texts(llama, tokenizer)


def test_a_trial_draws_no_random_numbers_of_the_users(llama: Any, tokenizer: Any) -> None:
    class Hashing(Usual):
        def _changed(self, logits: Any) -> Any:
            torch.rand(3)
            return logits

    model = of(Hashing, llama)
    torch.manual_seed(5)
    wanted = torch.rand(4)
    torch.manual_seed(5)
    LocalEngine(model, tokenizer).close()
    assert torch.equal(torch.rand(4), wanted)


def test_a_trial_passes_only_what_a_forward_takes(llama: Any) -> None:
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        assert torch.equal(plain_logits(of(Bare, llama), ids), plain_logits(llama, ids))


def test_tensors_that_a_model_keeps_from_its_trial_can_be_trained(llama: Any, tokenizer: Any) -> None:
    class Lazy(Usual):
        def _changed(self, logits: Any) -> Any:
            if not hasattr(self, "kept"):
                self.kept = torch.ones(()) * 2
            return logits * self.kept

    model = of(Lazy, llama)
    with LocalEngine(model, tokenizer, optimize="none"):
        model(input_ids=torch.arange(3, 11)[None]).logits.sum().backward()


def test_a_trial_leaves_the_models_mode_and_gradients_alone(llama: Any, tokenizer: Any) -> None:
    model = of(Plain, llama)
    model.train()
    with LocalEngine(model, tokenizer, optimize="none") as engine:
        assert model.training
        assert engine.stats().cache_kind == "batched"
    assert all(part.grad is None for part in model.parameters())


def test_the_argument_of_a_cache_is_found_by_name_or_by_its_kind() -> None:
    def model(forward: Any) -> Any:
        return type("Model", (), {"forward": forward})()

    def newest(self: Any, input_ids: Any, cache: Any = None) -> None: ...
    def older(self: Any, input_ids: Any, past_key_values: Any = None) -> None: ...
    def mamba(self: Any, input_ids: Any, cache_params: Any = None, cache_position: Any = None) -> None: ...
    def text(self: Any, input_ids: Any, memory: "hf.DynamicCache | None" = None) -> None: ...  # noqa: UP037
    def kind(self: Any, input_ids: Any, memory: Cache | None = None) -> None: ...
    def both(self: Any, input_ids: Any, memory: Cache | None = None, past_key_values: Any = None) -> None: ...
    def nothing(
        self: Any, input_ids: Any, use_cache: bool = True, cache_position: torch.Tensor | None = None
    ) -> None: ...
    def loose(self: Any, *args: Any, **kwargs: Any) -> None: ...

    found = [cache_argument(model(f)) for f in (newest, older, mamba, text, kind, both, nothing, loose)]
    assert found == ["cache", "past_key_values", "cache_params", "memory", "memory", "past_key_values", None, None]


def test_wrappers_of_a_model_do_not_hide_its_cache(llama: Any) -> None:
    inner = cache_argument(llama)
    assert inner in ("cache", "past_key_values")
    assert cache_argument(torch.compile(llama, backend="eager")) == inner

    class Adapted(torch.nn.Module):  # as peft's models are
        def get_base_model(self) -> Any:
            return llama

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return llama(*args, **kwargs)

    assert cache_argument(Adapted()) == inner
