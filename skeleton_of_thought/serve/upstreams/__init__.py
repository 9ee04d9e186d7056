"""The models that the server serves: in this process, on servers, and LangChain's."""

from __future__ import annotations

from skeleton_of_thought._cli.models import ModelSpec
from skeleton_of_thought.serve.settings import ModelSettings
from skeleton_of_thought.serve.upstream import Upstream

__all__ = ["open_upstream"]


async def open_upstream(model: ModelSettings) -> Upstream:
    """Opens a model: loads it, or makes a client of its server. Call it on the loop on which the model is used.

    Args:
        model: The model, and how its answers are made.

    Raises:
        InvalidInput: `model.spec` names no model, or the address of its server is invalid.
        MissingExtra: A package that it needs is not installed.
        ModelLoadError: The model cannot be loaded.
    """
    spec = ModelSpec.parse(model.spec)
    # Each kind needs packages that the others do without.
    if spec.source == "openai":
        from skeleton_of_thought.serve.upstreams.server import open_server

        return await open_server(model, spec)
    if spec.source == "langchain":
        from skeleton_of_thought.serve.upstreams.langchain import open_langchain

        return await open_langchain(model, spec)
    from skeleton_of_thought.serve.upstreams.local import open_local

    return await open_local(model, spec)
