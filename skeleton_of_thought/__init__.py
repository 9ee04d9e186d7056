"""Skeleton-of-Thought (SoT): outline the answer first, then write all points in parallel.

The idea is from Ning et al., "Skeleton-of-Thought: Prompting LLMs for Efficient Parallel Generation"
(ICLR 2024, arXiv 2307.15337). This package is the framework-free core and needs the standard library
alone; `langchain_sot` and `llama_index_sot` are its adapters, `skeleton_of_thought.local` decodes the
points of a local Hugging Face model as one batch.
"""

from skeleton_of_thought.errors import SotError
from skeleton_of_thought.parsing import parse_skeleton
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routing import Router
from skeleton_of_thought.types import Answer, Expansion, Point, Skeleton, Usage

__all__ = [
    "Answer",
    "Expansion",
    "Point",
    "PromptSet",
    "Router",
    "Skeleton",
    "SotError",
    "Usage",
    "parse_skeleton",
]
