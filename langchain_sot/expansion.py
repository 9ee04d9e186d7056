"""All points of a known skeleton, written in parallel: the second half of the chain as a runnable of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableParallel
from langchain_core.runnables.base import RunnableSequence

from langchain_sot.entry import FlowRunnable
from langchain_sot.inputs import filled_prompts
from langchain_sot.messages import ParsedInput, convert_messages, read_input, render_text
from langchain_sot.models.resolution import find_model, read_traits
from langchain_sot.plan import AnswerPlan
from langchain_sot.results import PointChunks, points_dict
from langchain_sot.retrieval import afind, call_config, find, point_query
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.types import Answer, Point, Reply, Skeleton

__all__ = ["PointExpansion", "as_skeleton"]


def as_skeleton(points: Skeleton | Sequence[str | Point]) -> Skeleton:
    """The skeleton with these points.

    Raises:
        InvalidInput: There are no points, or one without a title.
    """
    if isinstance(points, Skeleton):
        skeleton = points
    elif isinstance(points, str):
        raise InvalidInput("points is one string, but must be a list of titles: parse it with parse_skeleton first.")
    else:
        numbers = {point.index: i for i, point in enumerate(points, 1) if isinstance(point, Point)}
        skeleton = Skeleton(tuple(_numbered(i, point, numbers) for i, point in enumerate(points, 1)))
    if not skeleton.points:
        raise InvalidInput("There are no points to write: give at least one title.")
    for point in skeleton.points:
        if not isinstance(point.title, str) or not point.title.strip():
            raise InvalidInput(f"Point {point.index} has no title: {point.title!r}.")
    return skeleton


def _numbered(index: int, point: str | Point, numbers: Mapping[int, int]) -> Point:
    """The point with its place in the list as its number; `numbers` has these places by the points' own numbers."""
    if not isinstance(point, Point):
        return Point(index, point)
    parents = tuple(numbers[parent] for parent in point.depends_on if parent in numbers)
    return replace(point, index=index, depends_on=parents)


class PointExpansion(FlowRunnable, RunnableParallel[Any]):
    """A `RunnableParallel` with one step per point, whose result is `{"1": text, "2": text, ...}`.

    Unlike a plain one, it keeps to `max_concurrency` in every method, writes all points at once, whatever the number of
    cores, unless a limit is set, and leaves no call open when one fails or the stream is closed.
    `SkeletonOfThoughtChain.expansion` makes it.

    Attributes:
        chain: The chain whose models, prompts and settings are used.
        skeleton: The points.
    """

    chain: Any
    skeleton: Any

    def __init__(self, steps__: Mapping[str, Runnable[Any, Any]] | None = None, **kwargs: Any) -> None:
        # `RunnableParallel` takes every keyword for a step.
        plan: AnswerPlan = kwargs["chain"].plan(kwargs["skeleton"])
        steps = steps__ or {str(point.index): _step(plan, point) for point in kwargs["skeleton"].points}
        fields: dict[str, Any] = {"steps__": steps, **kwargs}
        super(RunnableParallel, self).__init__(**fields)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Never: serialize the chain, and call `expansion` again."""
        return False

    @property
    def InputType(self) -> Any:
        """The chain's input type."""
        return self.chain.InputType

    def get_input_schema(self, config: Any = None) -> Any:
        """The chain's input schema."""
        return self.chain.get_input_schema(config)

    def plan(self) -> AnswerPlan:
        """The chain's plan with the points of the skeleton."""
        plan: AnswerPlan = self.chain.plan(self.skeleton)
        return plan

    def _output(self, answer: Answer) -> dict[str, Any]:
        return points_dict(answer)

    def _chunks(self, parsed: ParsedInput) -> PointChunks:
        return PointChunks()


def _step(plan: AnswerPlan, point: Point) -> RunnableSequence[Any, str]:
    """One point as a chain, for graphs, and for users who take a single step."""
    prompt = _PointPrompt(plan, point)
    first: RunnableLambda[Any, Any] = RunnableLambda(prompt.make, prompt.amake, name=f"prompt {point.index}")
    return RunnableSequence(first, plan.point_llm, StrOutputParser())


@dataclass(frozen=True)
class _PointPrompt:
    """Makes the prompt of one point from an input of the chain.

    Attributes:
        plan: The plan of the points.
        point: The point.
    """

    plan: AnswerPlan
    point: Point

    def make(self, value: Any, config: RunnableConfig) -> Any:
        """The messages, or the string, for the model of the points."""
        parsed = read_input(value)
        found = None if parsed.keyed is None else parsed.keyed.found
        if found is None and self.plan.retriever is not None:
            found = find(self.plan.retriever, self._query(parsed), self._config(config))
        return self._rendered(parsed, found)

    async def amake(self, value: Any, config: RunnableConfig) -> Any:
        """Async twin of `make`."""
        parsed = read_input(value)
        found = None if parsed.keyed is None else parsed.keyed.found
        if found is None and self.plan.retriever is not None:
            found = await afind(self.plan.retriever, self._query(parsed), self._config(config))
        return self._rendered(parsed, found)

    @property
    def _own(self) -> Point | None:
        return self.point if self.plan.retrieval == "per_point" else None

    def _query(self, parsed: ParsedInput) -> str:
        return point_query(parsed.conversation.question, self._own)

    def _config(self, config: RunnableConfig) -> RunnableConfig:
        return call_config(config, self._own)

    def _rendered(self, parsed: ParsedInput, found: Reply | None) -> Any:
        plan = self.plan
        rendered = filled_prompts(plan, parsed).point_prompt(
            parsed.conversation,
            plan.skeleton or Skeleton((self.point,)),
            self.point,
            max_points=plan.settings.max_points,
            words=plan.settings.point_words,
            prefill=False,
            context="" if found is None else found.context,
            own_context=self._own is not None and (parsed.keyed is None or parsed.keyed.found is None),
        )
        traits = read_traits(find_model(plan.point_llm))
        if traits.text:
            return render_text(rendered)
        if not traits.native:
            return convert_messages(rendered)
        # The next step is the caller's model, so the messages say in which texts it reads no special token.
        *before, last = convert_messages(rendered.exact or rendered)
        quoted = {"split_special_tokens": list(rendered.quoted)}
        return [*before, last.model_copy(update={"additional_kwargs": {**last.additional_kwargs, **quoted}})]
