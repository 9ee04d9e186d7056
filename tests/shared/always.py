"""Chains without a router, which write a skeleton for every question. Most tests use them."""

from __future__ import annotations

from typing import Any

from langchain_sot import SkeletonOfThoughtChain


def skeleton_chain(**settings: Any) -> SkeletonOfThoughtChain:
    return SkeletonOfThoughtChain(**{"router": None, **settings})
