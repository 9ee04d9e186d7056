"""Skeletons of a small model on a real server, without and with a prefill.

Not every server continues the start of an assistant's turn, and without it a small model sometimes copies a placeholder
("[Add a title]") instead of filling it in. A llama.cpp server with the demo model gets both requests, greedily.
`usable` counts skeletons with 3 to 10 different titles, as the flow's parser reads them, and without a placeholder.

    python benchmarks/prefill.py --questions 20

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from questions import QUESTIONS, load_questions
from servers import llama_cpp

from skeleton_of_thought.local.models import demo_model_path
from skeleton_of_thought.parsing.parser import parse_skeleton
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.types import Conversation, Prompt

SLOTS, FEWEST, MOST = 4, 3, 10
PLACEHOLDER = re.compile(r"\[[^\]\n]*\]|<[^>\n]+>|\{[^}\n]*\}|_{3,}")


def skeleton_prompt(question: str, *, prefill: bool) -> Prompt:
    return PromptSet().skeleton_prompt(Conversation.of(question), max_points=MOST, words=40, prefill=prefill)


def written(url: str, prompt: Prompt, max_tokens: int) -> str:
    """The model's text, with the prefill in front."""
    messages = [{"role": message.role, "content": message.text} for message in prompt.messages]
    if prompt.prefill:
        messages.append({"role": "assistant", "content": prompt.prefill})
    body = {"model": "model", "messages": messages, "temperature": 0, "max_tokens": max_tokens}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        text = str(json.load(response)["choices"][0]["message"]["content"])
    return prompt.prefill + text.removeprefix(prompt.prefill)


def count(texts: Sequence[str]) -> dict[str, int]:
    """Counts the skeletons with a placeholder, and the usable ones."""
    placeholders = usable = 0
    for text in texts:
        copied = bool(PLACEHOLDER.search(text))
        titles = {title.casefold() for title in parse_skeleton(text).titles}
        placeholders += copied
        usable += not copied and FEWEST <= len(titles) <= MOST
    return {"skeletons": len(texts), "placeholders": placeholders, "usable": usable}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=20, help="ask the first N questions (default 20)")
    parser.add_argument("--csv", type=Path, help=f"a CSV file with a column `question` (default {QUESTIONS})")
    parser.add_argument("--max-tokens", type=int, default=120, help="the most tokens of a skeleton (default 120)")
    parser.add_argument("--show", action="store_true", help="print the skeletons")
    args = parser.parse_args()

    questions = [question.text for question in load_questions(args.csv, args.questions)]
    counts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(SLOTS) as pool:
        log = Path(folder) / "log"
        with llama_cpp(demo_model_path(), slots=SLOTS, context=2048, threads=2, log=log) as url:
            for way, prefill in (("without", False), ("with", True)):
                prompts = [skeleton_prompt(question, prefill=prefill) for question in questions]
                texts = list(pool.map(lambda prompt: written(url, prompt, args.max_tokens), prompts))
                counts[way] = count(texts)
                print(f"{way} a prefill: {counts[way]}", file=sys.stderr)
                if args.show:
                    for question, text in zip(questions, texts, strict=True):
                        print(f"\n## {question}\n{text}")
    print(json.dumps({"benchmark": "prefill", **counts}))


if __name__ == "__main__":
    main()
