"""From the text of a model to the points of a skeleton."""

from __future__ import annotations

from skeleton_of_thought.parsing.parser import ReasoningFilter, SkeletonParser, parse_skeleton, skeleton_of_titles

__all__ = ["ReasoningFilter", "SkeletonParser", "parse_skeleton", "skeleton_of_titles"]
