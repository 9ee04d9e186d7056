"""The trial run of a model's own cache: whether rows can continue, be copied and be stacked with the right logits."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from skeleton_of_thought.local.decoding_path import CacheKind, DecodingPath, fault_of, plain_logits
from skeleton_of_thought.local.own_cache import OwnCache, RowState, Way, stacked, takes_dynamic_cache
from skeleton_of_thought.local.trial import logit_distance, logit_tolerance, probe_tokens

__all__ = ["Reference", "continues", "try_outgrowing", "try_own_cache"]

logger = logging.getLogger(__name__)

_PIECES = ((0, 2), (2, 5), (5, 6), (6, 7))
_STEPS = ((0, 5), (5, 6), (6, 7))


class Reference:
    """A few tokens and the logits after them, without a cache or as `generate` has them.

    Attributes:
        ids: The tokens, `[1, tokens]`. More than are run: where later tokens change the logits of earlier ones, many
            later ones show it best.
        logits: The logits after each token, `[vocabulary]` each; None in place of those that are not known.
        slack: The allowed distance from them.
        prepared: Whether the model must prepare its own inputs, because a forward of the plain text differs.
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        self.ids = probe_tokens(model, device)
        own = plain_logits(model, self.ids)
        # A model that quantises the activations of all tokens together has different logits for parts of its text.
        noise = logit_distance(own[:5], plain_logits(model, self.ids[:, :5]))
        if not math.isfinite(noise):
            raise ValueError("its logits are not numbers")
        self.slack = max(logit_tolerance(model), min(4 * noise, 0.2))
        self.logits: list[torch.Tensor | None] = list(own)
        self.prepared = self._prepares(model)

    def near(self, at: int, logits: torch.Tensor) -> bool:
        """Whether these are the logits after the token at this place."""
        wanted = self.logits[at]
        return wanted is not None and logit_distance(wanted, logits.float()) <= self.slack

    def _prepares(self, model: Any) -> bool:
        """Take the text and logits of `generate` if its inputs matter: some models read more than the plain text."""
        try:
            out = model.generate(
                self.ids[:, :5], attention_mask=torch.ones_like(self.ids[:, :5]), do_sample=False, num_beams=1,
                max_new_tokens=3, min_new_tokens=3, return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
        except Exception as error:
            logger.debug("generate fails with %s", type(model).__name__, exc_info=error)
            return False
        logits = [step[0].float() for step in out.logits]
        if self.near(4, logits[0]):
            return False
        self.ids, self.logits = out.sequences, [None] * 4 + logits + [None]
        return True


def try_own_cache(model: Any, config: Any, path: DecodingPath, device: torch.device) -> tuple[DecodingPath, OwnCache]:
    """The way to run a model's rows one by one with its own logits, and the path that says so.

    Runs about twelve forwards of a few tokens.

    Args:
        model: The model, in evaluation mode.
        config: The configuration of its text part.
        path: The inferred path, not batched.
        device: The device of tokens.
    """
    ways: list[Way] = ["given"] if takes_dynamic_cache(model) else []
    try:
        reference = Reference(model, device)
    except Exception as error:
        logger.warning("The trial run of %s failed: %s: %s", type(model).__name__, type(error).__name__, error)
        blind: Way = ways[0] if ways and path.kind == "separate" else "whole"
        kind: CacheKind = "none" if blind == "whole" else "separate"
        return DecodingPath(kind, path.reason, path.expected), OwnCache(model, config, blind)
    ways += ["made"]
    if hasattr(model, "prepare_inputs_for_generation"):
        ways += ["prepared"]
    failures: dict[Way, str] = {}
    tried: list[Way] = ["prepared"] if reference.prepared else ways
    for way in tried:
        own = OwnCache(model, config, way)
        failures[way] = fault_of(lambda own=own: _explore(own, reference))  # type: ignore[misc]
        if not failures[way]:
            kind = "separate" if own.caches else "none"
            return DecodingPath(kind, "" if own.stacks_all else path.reason, path.expected), own
    logger.debug("%s cannot continue from a cache: %s", type(model).__name__, failures)
    if path.kind == "separate" and "given" in failures:
        path = DecodingPath("none", f"with a cache {failures['given']}", expected=False)
    return DecodingPath("none", path.reason, path.expected), OwnCache(model, config, "whole")


def try_outgrowing(model: Any, config: Any, device: torch.device) -> OwnCache:
    """The way to run rows whose text may outgrow the model's rotary embeddings, which then change.

    The row then has what `generate` has: some models begin again with an empty cache, others go on.
    """
    own = OwnCache(model, config, "prepared")
    own.hold_ropes()
    try:
        right = continues(own, Reference(model, device), pieces=False)
    except Exception as error:
        logger.debug("%s cannot prepare its own inputs", type(model).__name__, exc_info=error)
        right = False
    return own if right else OwnCache(model, config, "whole")


def continues(own: OwnCache, reference: Reference, *, pieces: bool) -> bool:
    """Whether one row in one piece, or in pieces, and then token by token has the model's own logits."""
    state = own.begin()
    for start, stop in _PIECES if pieces else _STEPS:
        logits = own.run(reference.ids[:, start:stop], state)
        if stop >= 5 and not reference.near(stop - 1, logits[0]):
            return False
        if stop == 5:
            before = state.nbytes
    own.caches = state.kept
    own.token_bytes = max(0.0, (state.nbytes - before) / 2)
    own.fixed_bytes = max(0.0, before - 5 * own.token_bytes)
    return True


def _explore(own: OwnCache, reference: Reference) -> bool:
    """Try one way, and what rows can do in it. Returns False if its logits are not the model's own."""
    # What `generate` prepares may depend on where a prompt ends, so such a prompt runs at once, from its beginning.
    own.pieces = own.way != "prepared" and not fault_of(lambda: continues(own, reference, pieces=True))
    if not own.pieces and not continues(own, reference, pieces=False):
        return False
    if not own.caches and not reference.prepared:
        return False
    if _after(own, reference.ids[:, :2]).selects:
        # In texts longer than this one, transformers selects other tokens where a prompt runs in pieces.
        own.pieces = False
        return True
    own.copies = own.way != "prepared" and not fault_of(lambda: _copies(own, reference))
    if own.copies:
        own.stacks = not fault_of(lambda: _stacks(own, reference, (5, 5)))
        own.stacks_all = own.stacks and not fault_of(lambda: _stacks(own, reference, (5, 4)))
    return True


def _after(own: OwnCache, ids: torch.Tensor) -> RowState:
    state = own.begin()
    own.run(ids, state)
    return state


def _copies(own: OwnCache, reference: Reference) -> bool:
    """Whether a copy of a row's state does not notice what the original runs afterwards."""
    ids = reference.ids
    state = _after(own, ids[:, :5])
    other = state.copied()
    own.run(ids[:, :1], state)
    return reference.near(5, own.run(ids[:, 5:6], other)[0])


def _stacks(own: OwnCache, reference: Reference, lengths: tuple[int, int]) -> bool:
    """Whether two rows of these lengths run together as each alone, and the second goes on when the first has left."""
    ids = reference.ids
    # Rows of equal length need another text: with the same one, no mix-up would show.
    texts = (ids, ids.flip(1) if lengths[0] == lengths[1] else ids)
    rows = [_after(own, text[:, :n]) for text, n in zip(texts, lengths, strict=True)]
    ways = [stacked(*rows)]
    if lengths[0] == lengths[1]:
        ways.append(stacked(own.begin(), own.begin()))
        if ways[1] is not None:
            own.run(torch.cat([text[:, : lengths[0]] for text in texts]), ways[1])
    alone = [own.run(texts[1][:, n : n + 1], rows[1])[0].float() for n in range(lengths[1], lengths[1] + 2)]
    return all(both is not None and _as_alone(own, reference, texts, both, alone) for both in ways)


def _as_alone(
    own: OwnCache,
    reference: Reference,
    texts: tuple[torch.Tensor, torch.Tensor],
    both: RowState,
    alone: list[torch.Tensor],
) -> bool:
    """Whether a step of two rows, and one of the second when the first has left, give the logits of each row alone."""
    n, m = both.lengths
    first, second = own.run(torch.cat((texts[0][:, n : n + 1], texts[1][:, m : m + 1])), both).float()
    last = own.run(texts[1][:, m + 1 : m + 2], both.selected([1]))[0].float()
    near = [logit_distance(a, b) <= reference.slack for a, b in zip(alone, (second, last), strict=True)]
    return reference.near(n, first) and all(near)
