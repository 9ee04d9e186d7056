"""Skeleton-of-Thought for LangChain: outline the answer first, then write all points in parallel."""

from langchain_sot.chain import SkeletonOfThoughtChain
from langchain_sot.chat_transformers import ChatTransformers
from langchain_sot.loading import load_chain
from langchain_sot.skeleton_parser import SkeletonOutputParser

__all__ = ["ChatTransformers", "SkeletonOfThoughtChain", "SkeletonOutputParser", "load_chain"]
