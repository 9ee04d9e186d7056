"""The chain as a chat model."""

from langchain_sot.chat_model.model import SkeletonOfThoughtChatModel

__all__ = ["SkeletonOfThoughtChatModel"]
