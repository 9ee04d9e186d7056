"""A tiny local model that writes its script's replies byte by byte, through a real engine.

It keeps no cache, so each forward sees the whole text: it finds the part of the reply that is already there and makes
the next token the likeliest. Where a grammar forbids that token, and after the reply, it prefers to end strings and
objects.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.modeling_outputs import CausalLMOutput

from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.worker import Worker

# Tiny models gain nothing from more threads, and lose a lot on a busy machine.
torch.set_num_threads(1)

PLAIN = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""A chat template without tools."""

_SHOWN = "{% if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</s>{% endif %}"

HERMES = (
    _SHOWN + "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
MISTRAL = (
    _SHOWN + "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}{{ raise_exception('nine, please') }}{% endif %}"
    "[TOOL_CALLS]{{ c.function | tojson }}#{{ c.id }}{% endfor %}"
    "{% if m.role == 'tool' %}#{{ m.tool_call_id }}{% endif %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
LLAMA = (
    _SHOWN + "{# Environment: ipython #}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}"
    '{"name": {{ c.function.name | tojson }}, "parameters": {{ c.function.arguments | tojson }}}'
    "{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
OTHER = _SHOWN + PLAIN

TEMPLATES = {"hermes": HERMES, "mistral": MISTRAL, "llama": LLAMA}

Script = Callable[[str], str]


def make_tokenizer(template: str | None, *special: str, adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer with a token per byte, and perhaps a BOS, `<s>`, before every text."""
    names = ["</s>", *special, *(["<s>"] if adds_bos else [])]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: i for i, name in enumerate([*names, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(names)
    if adds_bos:
        bos = [("<s>", core.token_to_id("<s>"))]
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=bos)
    kinds = {"bos_token": "<s>"} if adds_bos else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="</s>", **kinds)
    tokenizer.chat_template = template
    return tokenizer


def make_llama(**settings: Any) -> LlamaForCausalLM:
    """A random model over the bytes of `make_tokenizer`, the same each time."""
    torch.manual_seed(3)
    own = {
        "vocab_size": 257,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "bos_token_id": None,
        "max_position_embeddings": 4096,
    }
    return LlamaForCausalLM(LlamaConfig(**{**own, **settings})).eval()


class ScriptedModel(torch.nn.Module):
    """Replies to a prompt by a script."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, script: Script) -> None:
        super().__init__()
        size = len(tokenizer)
        self.config = LlamaConfig(
            vocab_size=size, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
            eos_token_id=0, bos_token_id=None, pad_token_id=0, max_position_embeddings=1 << 16,
        )  # fmt: skip
        self.embedding = torch.nn.Embedding(size, 4)
        self.tokenizer = tokenizer
        self.script = script
        self.prompts: list[str] = []
        self._mark = tokenizer("<assistant>")["input_ids"]
        self._fallback = torch.zeros(size)
        for rank, text in enumerate(("1", "}", '"', "</s>"), 1):
            self._fallback[tokenizer.convert_tokens_to_ids(text)] = rank

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.embedding

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> CausalLMOutput:
        logits = self._fallback.expand(*input_ids.shape, -1).clone()
        for row, ids in enumerate(input_ids.tolist()):
            # By tokens, not by text: half a character cannot be decoded.
            at = max(i for i in range(len(ids)) if ids[i : i + len(self._mark)] == self._mark)
            prompt, begun = self.tokenizer.decode(ids[:at]), ids[at + len(self._mark) :]
            if not begun:
                self.prompts.append(prompt)
            reply = self.tokenizer(self.script(prompt))["input_ids"]
            if reply[: len(begun)] == begun:
                logits[row, -1, reply[len(begun)] if len(begun) < len(reply) else 0] = 9.0
        return CausalLMOutput(logits=logits)


def scripted_engine(script: Script | str, template: str = HERMES, *special: str) -> LocalEngine:
    """An engine whose model replies with this text, or with the script's reply to the prompt."""
    tokenizer = make_tokenizer(template, *special)
    say = script if callable(script) else (lambda prompt: script)
    return LocalEngine(ScriptedModel(tokenizer, say).eval(), tokenizer)


def few_shot_script(titles: Sequence[str]) -> Callable[[str], str]:
    """A script of replies to the few-shot prompts of an answer with these points, the prefill included."""

    def script(prompt: str) -> str:
        last = re.findall(r"<user>(.*?)</s>", prompt, re.S)[-1]
        if point := re.search(r", explain: (.*)$", last):
            return f'"{point[1]}" - All about {point[1].lower()}.'
        if "headings" in last:
            return "\n".join(f"{i}. {title}" for i, title in enumerate(titles, 1))
        return "Just so."

    return script


@contextlib.contextmanager
def gathered(count: int, patience: float = 20.0) -> Iterator[None]:
    """Holds requests to engines back until this many have arrived; these then begin together.

    Otherwise the first call could end before the last one begins, and a busy machine would decide whether calls of
    several threads meet in one batch. If fewer calls come, because they wait for one another, these begin after
    `patience` seconds.
    """
    lock, kept = threading.Lock(), []
    submit, passing = Worker.submit, threading.Event()

    def release() -> None:
        with lock:
            together, kept[:] = list(kept), []
            passing.set()
        for worker in dict.fromkeys(worker for worker, _ in together):
            submit(worker, [row for by, rows in together if by is worker for row in rows])

    def gather(worker: Worker, rows: Sequence[Any]) -> None:
        with lock:
            late = passing.is_set()
            if not late:
                kept.append((worker, rows))
            full = sum(len(rows) for _, rows in kept) >= count
        if late:
            submit(worker, rows)
        elif full:
            release()

    timer = threading.Timer(patience, release)
    timer.daemon = True
    timer.start()
    Worker.submit = gather  # type: ignore[method-assign]
    try:
        yield
    finally:
        Worker.submit = submit  # type: ignore[method-assign]
        timer.cancel()
        timer.join()


def last_message(prompt: str) -> tuple[str, str]:
    """The role and the text of a prompt's last message."""
    role, text = re.findall(r"<(\w+)>((?:(?!<\w+>).)*?)</s>", prompt, re.S)[-1]
    return role, text
