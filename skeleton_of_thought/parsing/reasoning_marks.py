"""The marks with which models set their reasoning apart from their answer: one table, no code.

A new model family needs a row here and nothing else. `skeleton_of_thought.parsing.reasoning` applies the rows. Some
servers and tokenizers drop special tokens. Most formats have no marks at all then, so nothing can tell the reasoning
from the answer: let such a server keep its special tokens, or use the server's own reasoning parser.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["REASONING_MARKS", "ReasoningMarks"]


class ReasoningMarks(NamedTuple):
    """One format of reasoning.

    Attributes:
        models: Models that write it.
        opens: Open a block of reasoning, at the beginning of a reply.
        closes: Close a block that one of `opens` opened.
        lone: Closing marks that count without an opening one, as of templates that open the block in the prompt: all
            text before such a mark was reasoning.
        answer_opens: Stand before the answer, after a block. They are taken off, and so are `answer_closes`.
        answer_closes: End an answer that one of `answer_opens` began, at the end of the reply.
        bare_answer: Whether `answer_opens` are taken off a reply that has no reasoning, too.
        is_tag: Whether the marks are XML tags: in any case, and the opening one with attributes.
        before_capital: Whether the marks are plain words, which count only with a capital letter directly after them.
        keeps_unclosed: Whether a block that is never closed is text after all. Others are dropped.
    """

    models: str
    opens: tuple[str, ...]
    closes: tuple[str, ...]
    lone: tuple[str, ...] = ()
    answer_opens: tuple[str, ...] = ()
    answer_closes: tuple[str, ...] = ()
    bare_answer: bool = False
    is_tag: bool = False
    before_capital: bool = False
    keeps_unclosed: bool = False


_FINAL = ("<|start|>assistant<|channel|>final<|message|>", "<|channel|>final<|message|>")

_TAGS = {
    "think": "DeepSeek-R1 and V3, Qwen3 and QwQ, Phi-4-reasoning, Nemotron, GLM, MiniMax, SmolLM3, EXAONE 4, Hunyuan, "
    "ERNIE, Granite 4, Kimi K2, OLMo 3",
    "thought": "EXAONE Deep; Gemini and others when asked for it",
    "seed:think": "Seed-OSS",
    "mm:think": "MiniMax M2.5 and later",
    "longcat_think": "LongCat-Flash-Thinking",
    "thinking": "Claude, Reflection and others when asked for it",
    "antthinking": "Claude in clients with artifacts",
    "thoughts": "models that are asked for it",
    "thought_process": "models that are asked for it",
    "thinking_process": "models that are asked for it",
    "reasoning": "Reka Flash 3; models that are asked for it",
    "scratchpad": "models that are asked for it",
    "reflection": "Reflection; models that are asked for it",
    "inner_monologue": "models that are asked for it",
    "chain_of_thought": "models that are asked for it",
}
"""Names of tags, with the models that write them."""

_ANSWER_TAGS = ("answer", "response", "output", "final_answer", "final")
"""Tags around the answer: `answer` of Hunyuan A13B and R1-Zero, `response` of ERNIE 4.5, `output` of Reflection."""

REASONING_MARKS: tuple[ReasoningMarks, ...] = (
    *(
        ReasoningMarks(
            models=models,
            opens=(f"<{name}>",),
            closes=(f"</{name}>",),
            lone=(f"</{name}>",),
            answer_opens=tuple(f"<{answer}>" for answer in _ANSWER_TAGS),
            answer_closes=tuple(f"</{answer}>" for answer in _ANSWER_TAGS),
            is_tag=True,
        )
        for name, models in _TAGS.items()
    ),
    ReasoningMarks(
        models="Magistral and other Mistral models",
        opens=("[THINK]",),
        closes=("[/THINK]",),
        lone=("[/THINK]",),
    ),
    ReasoningMarks(
        models="Kimi-VL-Thinking, Kimi k1.5",
        opens=("◁think▷",),
        closes=("◁/think▷",),
        lone=("◁/think▷",),
    ),
    ReasoningMarks(
        models="Kimi K3",
        opens=("<|open|>think<|sep|>",),
        closes=("<|close|>think<|sep|>",),
        lone=("<|close|>think<|sep|>",),
        answer_opens=("<|open|>response<|sep|>",),
        answer_closes=("<|close|>response<|sep|>",),
        bare_answer=True,
    ),
    ReasoningMarks(
        models="Cohere Command A Reasoning",
        opens=("<|START_THINKING|>",),
        closes=("<|END_THINKING|>",),
        lone=("<|END_THINKING|>",),
        answer_opens=("<|START_RESPONSE|>", "<|START_TEXT|>"),
        answer_closes=("<|END_RESPONSE|>", "<|END_TEXT|>"),
        bare_answer=True,
    ),
    ReasoningMarks(
        # The name of the channel is on the line of the mark.
        models="Gemma 4",
        opens=("<|channel>thought", "<|channel>analysis"),
        closes=("<channel|>",),
        lone=("<channel|>",),
    ),
    ReasoningMarks(
        models="MedGemma 1.5",
        opens=("<unused94>",),
        closes=("<unused95>",),
        lone=("<unused95>",),
    ),
    ReasoningMarks(
        models="gpt-oss (harmony)",
        opens=tuple(
            f"{start}<|channel|>{name}<|message|>"
            for start in ("", "<|start|>assistant")
            for name in ("analysis", "commentary")
        ),
        closes=("<|end|>", *_FINAL),
        lone=_FINAL,
        answer_opens=_FINAL,
        answer_closes=("<|return|>", "<|end|>"),
        bare_answer=True,
    ),
    ReasoningMarks(
        # "analysisWe need ...assistantfinalIt helps." Nothing marks the end of the last channel.
        models="gpt-oss where special tokens were dropped",
        opens=("analysis",),
        closes=("assistantfinal",),
        answer_opens=("final", "assistantfinal"),
        bare_answer=True,
        before_capital=True,
    ),
    ReasoningMarks(
        # Plain sentences, which a reply about something else might begin with.
        models="Granite 3.2 and 3.3",
        opens=("Here is my thought process:", "Here's my thought process:"),
        closes=("Here is my response:", "Here's my response:"),
        keeps_unclosed=True,
    ),
    ReasoningMarks(
        models="OpenThinker, Sky-T1, Bespoke-Stratos",
        opens=("<|begin_of_thought|>",),
        closes=("<|end_of_thought|>",),
        lone=("<|end_of_thought|>",),
        answer_opens=("<|begin_of_solution|>",),
        answer_closes=("<|end_of_solution|>",),
    ),
    ReasoningMarks(
        models="s1",
        opens=("<|im_start|>think",),
        closes=("<|im_start|>answer",),
        lone=("<|im_start|>answer",),
    ),
    ReasoningMarks(
        models="Apertus",
        opens=("<|inner_prefix|>",),
        closes=("<|inner_suffix|>",),
        lone=("<|inner_suffix|>",),
    ),
    ReasoningMarks(
        models="Inkling",
        opens=("<|content_thinking|>", "<|message_model|><|content_thinking|>"),
        closes=("<|end_message|>",),
        answer_opens=("<|content_text|>", "<|message_model|><|content_text|>"),
        answer_closes=("<|end_message|>",),
        bare_answer=True,
    ),
)
