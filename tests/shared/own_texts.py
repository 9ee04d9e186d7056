"""Random prompts of one letter a token, and the text that a model itself writes for one prompt."""

from __future__ import annotations

import random
from typing import Any

import torch


def letters(count: int, seed: int, vocabulary: int) -> str:
    """A random text of this many tokens."""
    source = random.Random(seed)
    return "".join(chr(0x100 + source.randrange(3, vocabulary)) for _ in range(count))


def alone(model: Any, tokenizer: Any, prompt: str, tokens: int) -> tuple[tuple[int, ...], float]:
    """The model's text for one prompt, and the smallest gap between its two likeliest tokens at any step."""
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    best = torch.stack(out.logits)[:, 0].float().topk(2).values
    return tuple(out.sequences[0, ids.shape[1] :].tolist()), float((best[:, 0] - best[:, 1]).min())
