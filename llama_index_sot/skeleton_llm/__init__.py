"""An LLM that answers by Skeleton-of-Thought, for every place that takes an LLM of LlamaIndex."""

from llama_index_sot.skeleton_llm.llm import FunctionCallingSkeletonOfThoughtLLM, SkeletonOfThoughtLLM

__all__ = ["FunctionCallingSkeletonOfThoughtLLM", "SkeletonOfThoughtLLM"]
