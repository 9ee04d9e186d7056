"""Loads chains that were dumped to JSON."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from langchain_core._api import LangChainBetaWarning
from langchain_core.load import load
from langchain_core.load.serializable import Serializable

from langchain_sot.chain import SkeletonOfThoughtChain
from langchain_sot.chat_model.model import SkeletonOfThoughtChatModel
from langchain_sot.local.chat_transformers import ChatTransformers
from langchain_sot.picking import PickedKeys
from langchain_sot.route_runnable import SkeletonOfThoughtRouter
from langchain_sot.skeleton_parser import SkeletonOutputParser

__all__ = ["load_chain"]

_CLASSES: tuple[type[Serializable], ...] = (
    SkeletonOfThoughtChain,
    SkeletonOfThoughtChatModel,
    ChatTransformers,
    SkeletonOfThoughtRouter,
    PickedKeys,
    SkeletonOutputParser,
)


def load_chain(
    dumped: str | Mapping[str, Any], *, secrets_map: Mapping[str, str] | None = None, secrets_from_env: bool = False
) -> Any:
    """Loads a chain, or a runnable with a chain in it, that `langchain_core.load.dumps` or `dumpd` made.

    LangChain's own `load` knows its classes and those of its partners; this function adds those of this package.
    A dump can do as much as code: it may name any model and server. Load only dumps that you trust.

    Example:
        >>> from langchain_core.load import dumps
        >>> from langchain_core.runnables import RunnablePassthrough
        >>> from langchain_sot import SkeletonOutputParser, load_chain
        >>> chain = RunnablePassthrough() | SkeletonOutputParser(max_points=3)
        >>> load_chain(dumps(chain)).invoke("1. Move\\n2. Rest")
        ['Move', 'Rest']

    Args:
        dumped: JSON, or a dict.
        secrets_map: API keys by their names, which are not part of a dump: `{"OPENAI_API_KEY": ...}`.
        secrets_from_env: Whether to take missing keys from the environment.

    Raises:
        NotImplementedError: A part of the chain could not be dumped, such as a function as the router.
        ValueError: This is no dump, or it names a class that LangChain does not allow.
    """
    value = json.loads(dumped) if isinstance(dumped, str) else dumped
    if not isinstance(value, Mapping) or "lc" not in value:
        raise ValueError("This is no dump of a runnable: give what langchain_core.load.dumps or dumpd returned.")
    own = {tuple(each.lc_id()): (*each.__module__.split("."), each.__name__) for each in _CLASSES}
    settings: dict[str, Any] = {
        "secrets_map": dict(secrets_map or {}),
        "secrets_from_env": secrets_from_env,
        "valid_namespaces": ["langchain_sot"],
        "additional_import_mappings": own,
        "allowed_objects": "all",  # by default LangChain loads only prompts and messages, no model
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LangChainBetaWarning)
        return load(value, **settings)
