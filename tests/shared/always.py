"""Chains that make a skeleton of every question: what happens then is what most tests are about."""

from __future__ import annotations

from typing import Any

from langchain_sot import SkeletonOfThoughtChain


def skeleton_chain(**settings: Any) -> SkeletonOfThoughtChain:
    return SkeletonOfThoughtChain(**{"router": None, **settings})
