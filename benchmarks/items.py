"""Questions about several items, answered item by item, against one normal answer.

On the local engine, 8 sentences to be translated, each answered with `--tokens` tokens (greedily, ignoring
end-of-text), in turns with one answer to the whole question of 8 times as many:

    generate    the whole question by `model.generate`
    single      the whole question as a single row of `LocalEngine`
    items       the question as a chain or an engine with a router answers it: one row per item

The speed-up is the median over questions of the time of the other two divided by that of the items. Then the same
question through `SkeletonOfThoughtChain`, sync and async, over `ChatOpenAI` and a server (`paced_upstream.py`) that
takes `--seconds` for each reply: the time of the answer over that.

    python benchmarks/items.py

The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from langchain_openai import ChatOpenAI
from paced_upstream import WORD
from served import process

from langchain_sot import SkeletonOfThoughtChain
from skeleton_of_thought.drive import run
from skeleton_of_thought.flow import AnswerFlow
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.types import Call, Conversation, Prompt, Reply

_SENTENCES = (
    "The ferry leaves at noon.",
    "Our oven is broken again.",
    "She paints birds on old doors.",
    "Nobody reads the small print.",
    "The market closes when it rains.",
    "My uncle repairs violins.",
    "They moved the bridge upstream.",
    "The soup needs more salt.",
)
_LANGUAGES = ("French", "Spanish", "Italian", "Polish", "Dutch", "Danish", "Greek", "Welsh")


def question(language: str) -> str:
    """Eight sentences to be translated."""
    listed = "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(_SENTENCES, 1))
    return f"Translate each of these sentences into {language}:\n{listed}"


def local(model: str | None, questions: int, tokens: int) -> dict[str, Any]:
    """Answers by the local engine, in turns.

    Args:
        model: The model's name; None for the demo's.
        questions: The number of questions.
        tokens: Tokens of each item.
    """
    import torch
    from decoding import Generate

    from skeleton_of_thought.local import LocalEngine

    seconds: dict[str, list[float]] = {"generate": [], "single": [], "items": []}
    total = tokens * len(_SENTENCES)
    with LocalEngine.from_pretrained(model) as engine, torch.inference_mode():
        generate = Generate(engine)

        def items(text: str) -> int:
            def opened(call: Call, _: int) -> Iterator[str]:
                assert call.prompt is not None
                with engine.stream(call.prompt, max_new_tokens=tokens, ignore_eos=True) as stream:
                    yield from stream
                yield Reply(usage=stream.completion.usage)

            flow = AnswerFlow(Conversation.of(text), router=AutoRouter())
            for _ in run([flow], opened):
                pass
            assert flow.answer.route == "items", flow.answer.reason
            return flow.answer.usage.output_tokens

        def single(text: str) -> int:
            (done,) = engine.generate([Prompt(Conversation.of(text).messages)], max_new_tokens=total, ignore_eos=True)
            return done.usage.output_tokens

        ways: dict[str, Callable[[str], int]] = {
            "generate": lambda text: generate([Prompt(Conversation.of(text).messages)], total),
            "single": single,
            "items": items,
        }
        for way in ways.values():  # compiled and read once, before any time is taken
            way(question("Latin"))
        for number in range(questions):
            text = question(_LANGUAGES[number % len(_LANGUAGES)])
            names = list(ways)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                start = time.perf_counter()
                decoded = ways[name](text)
                seconds[name].append(time.perf_counter() - start)
                assert decoded == total, f"{name} decoded {decoded} tokens, not {total}"
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds[name], seconds["items"], strict=True))
        for name in ("generate", "single")
    }
    return {
        "items": len(_SENTENCES),
        "tokens": total,
        "median_seconds": {name: round(statistics.median(each), 3) for name, each in seconds.items()},
        "median_speedup_over": {name: round(ratio, 2) for name, ratio in ratios.items()},
    }


def served(tokens: int, seconds: float, repeats: int) -> dict[str, Any]:
    """The time of an answer over that of the slowest item, from a server of known pace, and over one normal answer.

    Args:
        tokens: Tokens of each item.
        seconds: What the server takes for them.
        repeats: Answers of each kind.
    """
    over: dict[str, list[float]] = {"sync": [], "async": []}
    with process("benchmarks/paced_upstream.py", address=0) as (_, address):
        pace = {"pace": {"tokens": tokens, "seconds": seconds}}
        llm = ChatOpenAI(base_url=f"{address}/v1", api_key="none", model="paced", extra_body=pace, max_retries=0)
        chain = SkeletonOfThoughtChain(llm=llm, router="auto")

        def once() -> float:
            start = time.perf_counter()
            answer = chain.invoke(question("French"))
            assert answer["route"] == "items", answer["reason"]
            assert answer["answer"].count(WORD.strip()) == tokens * len(_SENTENCES)
            return time.perf_counter() - start

        async def each() -> list[float]:
            taken = []
            for _ in range(repeats + 1):
                start = time.perf_counter()
                await chain.ainvoke(question("French"))
                taken.append(time.perf_counter() - start)
            return taken[1:]  # the first one connects

        once()
        over["sync"] = [once() for _ in range(repeats)]
        over["async"] = asyncio.run(each())
    return {name: round(statistics.median(values) / seconds, 4) for name, values in over.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model for LocalEngine (default: the demo's)")
    parser.add_argument("--questions", type=int, default=6, help="questions on the local engine (default 6)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each item (default 64)")
    parser.add_argument("--seconds", type=float, default=2.0, help="a reply of the server (default 2)")
    parser.add_argument("--repeats", type=int, default=5, help="answers from the server of each kind (default 5)")
    parser.add_argument("--served-only", action="store_true", help="leave out the local engine")
    args = parser.parse_args()
    result: dict[str, Any] = {"over_slowest_item": served(args.tokens, args.seconds, args.repeats)}
    print("over the slowest item:", ", ".join(f"{k} {v:.1%}" for k, v in result["over_slowest_item"].items()))
    if not args.served_only:
        result["local"] = local(args.model, args.questions, args.tokens)
        for name, value in result["local"]["median_speedup_over"].items():
            print(f"items are {value:.2f} times as fast as {name}, {result['local']['tokens']} tokens each")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
