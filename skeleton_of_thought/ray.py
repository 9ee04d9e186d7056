"""Answers over a cluster: a callable class for `map_batches` of Ray Data, with a pool of actors.

    import ray
    from skeleton_of_thought.ray import AnswerQuestions

    answers = ray.data.read_csv("questions.csv").map_batches(
        AnswerQuestions,
        fn_constructor_kwargs={"model": "openai:NAME@http://host:8000/v1", "concurrency": 16},
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_size=16,
    )

The module does not import Ray: an instance also works in a plain process.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, cast

from skeleton_of_thought.budget import Budget, Share
from skeleton_of_thought.errors import InvalidInput, ModelLoadError, SotError, error_text
from skeleton_of_thought.evaluation.answering import AnswerOnce, row_of
from skeleton_of_thought.evaluation.journal import key_of, key_settings
from skeleton_of_thought.evaluation.questions import Question
from skeleton_of_thought.evaluation.rows import Row, to_json
from skeleton_of_thought.evaluation.runner import Job
from skeleton_of_thought.evaluation.ways import Way
from skeleton_of_thought.prompts import PromptSet
from skeleton_of_thought.routers.auto import as_router
from skeleton_of_thought.routers.cost import CostGuard
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Call

if TYPE_CHECKING:
    from skeleton_of_thought._cli.backend import ModelBackend, Prefill
    from skeleton_of_thought.routers.base import AnyRouter

__all__ = ["COLUMNS", "AnswerQuestions"]

COLUMNS = (
    *("answer", "error", "route", "seconds", "calls", "input_tokens", "cached_tokens", "output_tokens"),
    *("finish_reason", "key", "row"),
)
"""The columns that a batch gets: text, why there is none, figures, and all of it as one JSON object."""
_MOST_THREADS = 256


class AnswerQuestions:
    """Answers the questions of a batch, with one engine or one client of a server for all batches of an actor.

    A batch is a mapping of columns, each an array or a list, as Ray Data passes it with `batch_format="numpy"`. The
    result has its columns, and those of `COLUMNS`. A question that cannot be answered is a row with an `error`, so one
    bad question ends no job. All calls of an answer are made by the actor that has its question.

    The questions of a batch are answered at once: an answer begins when the model has room for a call that no earlier
    answer waits for. Several threads may call one instance (`enable_true_multi_threading`), and share that room.

    Args:
        model: What `sot ask --model` takes: a hub id, a folder or a .gguf file, `openai:NAME@URL`,
            `langchain:PROVIDER:NAME`; None for the demo model. Or a function that makes a backend. It is loaded on the
            actor; keys of servers come from the environment of its machine.
        settings: How an answer is made.
        prompts: The prompts of all stages.
        router: Decides which answers get a skeleton; None for all.
        concurrency: The most calls that are open on this actor at any time.
        system: A system message for all questions.
        column: The column with the questions.
        system_column: A column with a system message of a question's own; None for none.
        key_column: A column whose values the rows take as their `key`; None for keys of the question and the settings,
            by which a later job can leave out what is answered (`evaluation.journal.key_of`).
        temperature: For sampling; None for the model's default.
        seed: For sampling.
        max_tokens: The most tokens of a call.
        prefill: Whether the model gets the start of its turns.

    Raises:
        InvalidInput: A setting is invalid. That a model cannot be loaded is raised by the first batch: Ray tells that
            error as it is, and starts no actor anew for it.
    """

    def __init__(
        self,
        model: str | Callable[[], ModelBackend] | None = None,
        *,
        settings: Settings | None = None,
        prompts: PromptSet | None = None,
        router: AnyRouter | Literal["auto"] | None = "auto",
        concurrency: int = 8,
        system: str | None = None,
        column: str = "question",
        system_column: str | None = None,
        key_column: str | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        max_tokens: int | None = None,
        prefill: Prefill = "auto",
    ) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise InvalidInput(f"concurrency is the number of open calls, at least 1, not {concurrency!r}.")
        self._model = model
        self._settings = settings or Settings(on_point_error="placeholder")
        self._prompts = prompts or PromptSet()
        made = as_router(router, guard=CostGuard(max_points=self._settings.max_points))
        name = "auto" if router == "auto" else "sot" if made is None else "routed"
        self._way = Way(name, "answers on a cluster", changes={}, make_router=lambda settings: made)
        self._concurrency = concurrency
        self._system = system
        self._columns = (column, system_column, key_column)
        self._sampling = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens, "prefill": prefill}
        self._key_settings = key_settings(
            self._settings, prompts=prompts, system=system, **(self._sampling | {"router": name})
        )
        self._loaded = self._load()

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """The batch with its answers, in the same order.

        Raises:
            InvalidInput: A column is missing, or has a name of `COLUMNS`.
            SotError: The model cannot be loaded.
        """
        column, system_column, key_column = self._columns
        _check(batch, [name for name in self._columns if name is not None])
        size = len(batch[column])
        systems = [None] * size if system_column is None else batch[system_column]
        keys = [""] * size if key_column is None else batch[key_column]
        loaded = self._loaded
        if isinstance(loaded, SotError):
            raise loaded
        # Each thread of the pool waits until the model has room. The results have the order of the questions.
        rows = list(loaded.pool.map(partial(self._answer, loaded), batch[column], systems, keys))
        made: dict[str, Sequence[Any]] = dict(batch)
        made["answer"] = [row.text for row in rows]
        for name in COLUMNS[1:-1]:
            made[name] = [getattr(row, name) or _EMPTY[name] for row in rows]
        made["row"] = [json.dumps(to_json(row), ensure_ascii=False) for row in rows]
        return made

    def close(self) -> None:
        """Ends after the answers under way, and frees the model. Actors of Ray need none of it."""
        loaded, self._loaded = self._loaded, SotError("These answers were closed.")
        if not isinstance(loaded, SotError):
            loaded.pool.shutdown()
            loaded.backend.close()

    def _load(self) -> _Loaded | SotError:
        try:
            backend = self._backend()
        except Exception as error:
            return error if isinstance(error, SotError) else ModelLoadError(error_text(error))
        most = min(filter(None, (self._concurrency, backend.capacity)))
        room = _Room(most)
        unread = SimpleNamespace(
            open_call=backend.open_call,
            explain=backend.explain,
            checkpoint=backend.checkpoint,
            # Nobody reads along, so a point may be written again even after part of its text.
            flow=lambda conversation, **given: backend.flow(conversation, **(given | {"live": False})),
        )
        answer = AnswerOnce(
            unread,
            model=backend.name,
            settings=self._settings,
            prompts=self._prompts,
            system=self._system,
            max_concurrency=most,
            share=room.share,
            plain=lambda text: "",  # for judges alone
        )
        return _Loaded(backend, answer, room, ThreadPoolExecutor(min(most, _MOST_THREADS), "sot-answer"))

    def _backend(self) -> ModelBackend:
        if callable(self._model):
            return self._model()
        from skeleton_of_thought._cli.models import ModelSpec, load_backend

        return load_backend(ModelSpec.parse(self._model), quiet=True, **cast("Any", self._sampling))

    def _answer(self, loaded: _Loaded, question: Any, system: Any, key: Any) -> Row:
        own = system if isinstance(system, str) else ""
        if not isinstance(question, str) or not question.strip():
            job = Job(Question(0, str(question), "", system=own), self._way, 1, str(key))
            return row_of(None, job, model=loaded.backend.name, error=InvalidInput("There is no question in this row."))
        key = str(key) or key_of(
            question, way=self._way.name, model=loaded.backend.name, settings=self._key_settings, system=own
        )
        loaded.room.wait()
        try:
            return loaded.answer(Job(Question(0, question, "", system=own), self._way, 1, key))
        finally:
            loaded.room.leave()


@dataclass(frozen=True)
class _Loaded:
    backend: ModelBackend
    answer: AnswerOnce
    room: _Room
    pool: ThreadPoolExecutor


class _Room:
    """The open calls of all answers of an actor, and the rule when a further answer begins."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._budget = Budget(most)
        self._changed = threading.Condition()
        self._mine = threading.local()
        self._fresh: set[_RoomShare] = set()  # answers that have opened no call yet
        self._waiting: set[_RoomShare] = set()  # answers with a call that found no room

    def wait(self) -> None:
        """Waits until the model has room for a call that no earlier answer waits for; this thread has the room then."""
        share = self._mine.share = _RoomShare(self._budget, self)
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and self._budget.open + len(self._fresh) < self.most)
            self._fresh.add(share)

    def share(self) -> Share:
        """The share of the answer that this thread has waited for."""
        share: Share = self._mine.share
        return share

    def leave(self) -> None:
        """This thread's answer has ended."""
        self.note(self._mine.share, waits=False)

    def changed(self) -> None:
        """A call was closed."""
        with self._changed:
            self._changed.notify_all()

    def note(self, share: _RoomShare, *, waits: bool) -> None:
        """An answer opened a call or ended; or it found no room for a call, and `waits`."""
        with self._changed:
            self._fresh.discard(share)
            (self._waiting.add if waits else self._waiting.discard)(share)
            self._changed.notify_all()


class _RoomShare(Share):
    def __init__(self, budget: Budget, room: _Room) -> None:
        super().__init__(budget, most=room.most, shared=True)
        self._room = room

    def open(self, key: Any, call: Call, now: float) -> bool:
        opened = super().open(key, call, now)
        self._room.note(self, waits=not opened)
        return opened

    def close(self, key: Any, *, succeeded: bool = False) -> None:
        super().close(key, succeeded=succeeded)
        self._room.changed()


_EMPTY: Mapping[str, Any] = {
    **dict.fromkeys(("error", "route", "finish_reason", "key"), ""),
    **dict.fromkeys(("calls", "input_tokens", "cached_tokens", "output_tokens"), 0),
    "seconds": 0.0,
}
"""Never None: Arrow gives a column of nothing but None no type."""


def _check(batch: Mapping[str, Any], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in batch:
            raise InvalidInput(f"The data has no column {name!r}; it has {', '.join(map(repr, batch)) or 'none'}.")
    for name in COLUMNS:
        if name in batch:
            raise InvalidInput(f"The data has a column {name!r}, as its answers have: rename it.")
