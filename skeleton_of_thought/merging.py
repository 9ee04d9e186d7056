"""The merge of an answer: its steps, and its text under way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from functools import partial

from skeleton_of_thought import events
from skeleton_of_thought.adapters.finish_reasons import CUT, FAILED, FINAL, reply_error
from skeleton_of_thought.adapters.replies import ending
from skeleton_of_thought.board import CallFlow
from skeleton_of_thought.draft import Draft
from skeleton_of_thought.errors import MergeError
from skeleton_of_thought.restarts import restart_answer, void_merge, void_text
from skeleton_of_thought.templates import AnswerPrompts
from skeleton_of_thought.text.assembly import POINT_BREAK, WholeText
from skeleton_of_thought.text.echoes import PromptEcho
from skeleton_of_thought.text.loops import LoopGuard
from skeleton_of_thought.types import Answer, Call, Prompt, Reply, Skeleton

__all__ = ["MergeFlow", "MergeWriting"]


class MergeWriting:
    """The text of a merge under way.

    Args:
        prompt: The prompt of its call.
        material: Texts in the prompt that the merge may repeat.
        quotable: Whether the instruction may want some of its own words in the text.
        loops: Ends a text that repeats itself; None to keep it.

    Attributes:
        pieces: The cleaned text.
        loops: As given.
        voided: Whether text that was shown turned out to be reasoning, and is still to be taken back.
    """

    def __init__(self, prompt: Prompt, material: Iterable[str], *, quotable: bool, loops: LoopGuard | None) -> None:
        self.pieces: list[str] = []
        self.voided = False
        self.loops = loops
        self._cleaner = WholeText()
        self._new_echo = partial(PromptEcho, prompt, list(material), quotable=quotable)
        self._echo = self._new_echo()

    def feed(self, text: str) -> str:
        """Takes more text of the model; returns the text that belongs to the answer."""
        text = self._cleaned(self._cleaner.feed(text))
        text = self._echo.feed(text)
        return self._keep(text if self.loops is None else self.loops.feed(text))

    def close(self) -> str:
        """Ends the text; returns the rest of it."""
        text = self._cleaned(self._cleaner.close())
        text = self._echo.feed(text) + self._echo.close()
        return self._keep(text if self.loops is None else self.loops.feed(text) + self.loops.close())

    def _cleaned(self, text: str) -> str:
        if self._cleaner.restarted:
            void_text(self)
            self._echo = self._new_echo()
        return text

    def _keep(self, text: str) -> str:
        if text:
            self.pieces.append(text)
        return text

    @property
    def fault(self) -> MergeError | None:
        """The fault found so far in the merge; None if there is none."""
        if self._echo.found:
            return MergeError("The model repeated its instruction. Try a larger model, or a merge prompt of your own.")
        if self.loops is not None and self.loops.looping:
            return MergeError("The model repeated the same passage again and again. Try a larger model.")
        return None

    def final_fault(self, reply: Reply) -> MergeError | None:
        """The fault of the ended merge; None if there is none."""
        if (fault := self.fault) is not None:
            return fault
        reason = ending(reply)
        if reason in FAILED:
            return MergeError(str(reply_error(reply)))
        if reason == "length":
            why = f"The model ended its text before it was complete (finish reason {reply.finish_reason!r})."
            return MergeError(f"{why} Allow it more tokens, or fewer or shorter points.")
        if reason == CUT:
            return MergeError("The model wrote more than max_answer_chars, and did not end its text.")
        return None if self.pieces else MergeError("The model gave no text.")


class MergeFlow(CallFlow):
    """The steps of an answer's merge. The steps before it, and the end of the answer, are those of `AnswerFlow`."""

    _draft: Draft
    _prompts: AnswerPrompts

    @property
    @abstractmethod
    def answer(self) -> Answer:
        """The answer as far as it is."""

    @abstractmethod
    def _show_text(self, text: str) -> None:
        """Shows a text as it is."""

    @abstractmethod
    def _finish(self) -> None:
        """Ends the answer."""

    def _open_merge(self, attempt: int = 1) -> None:
        self._actions.append(events.MergeStarted(attempt))
        try:
            prompt = self._begin_merge()
        except Exception as error:  # of a template of the caller's: with all points written, no reason to lose them
            self._give_up_merge(error)
        else:
            self._open("merge", prompt, attempt=attempt)

    def _begin_merge(self) -> Prompt:
        """Begins the text of a merge; returns the prompt for it.

        Raises:
            Exception: Any error of a template of the caller's.
        """
        draft, prompts = self._draft, self._prompts
        draft.merge = None
        skeleton, text = draft.skeleton or Skeleton(), draft.join(draft.written(), roles=True)
        prompt = prompts.merge(skeleton, text)
        material = prompts.merge_material(skeleton, text)
        draft.merge = MergeWriting(prompt, material, quotable=prompts.has_own_merge, loops=draft.loop_guard())
        return prompt

    def _shows_merge(self) -> bool:
        """Whether the reader has text of the merge."""
        merge = self._draft.merge
        return self._draft.release.live and merge is not None and bool(merge.pieces)

    def _read_merge(self, call: Call, text: str) -> None:
        merge = self._draft.merge
        assert merge is not None
        self._show_merge(merge, merge.feed(text))
        if (fault := merge.fault) is not None:
            self._cancel(call)
            self._give_up_merge(fault)

    def _show_merge(self, merge: MergeWriting, text: str) -> None:
        if merge.voided:
            self._actions += void_merge(self._draft, merge)
        self._show_text(text)

    def _end_merge(self, call: Call, reply: Reply) -> None:
        merge = self._draft.merge
        assert merge is not None
        self._show_merge(merge, merge.close())
        if (fault := merge.final_fault(reply)) is not None:
            # A model that repeats itself or its prompt, or that was stopped, would most likely do so again.
            final = merge.fault is not None or ending(reply) in (*FINAL, CUT)
            self._fail_merge(fault, self.settings.max_retries + 1 if final else call.attempt)
            return
        self._draft.merged = True
        self._actions.append(events.MergeDone("".join(merge.pieces)))
        if failed := self._draft.failed():
            self._show_text(POINT_BREAK + failed)
        self._finish()

    def _fail_merge(self, error: Exception, attempt: int) -> None:
        if attempt <= self.settings.max_retries and not self._shows_merge():
            self._open_merge(attempt + 1)
        else:
            self._give_up_merge(error)

    def _give_up_merge(self, error: Exception) -> None:
        """Ends the answer with its points as they are: a failed merge never loses the answer."""
        self._draft.merge_error = error
        self._actions.append(events.MergeDone("", error))
        if self._shows_merge():
            self._actions += restart_answer(error)
        self._show_text(self.answer.text)
        self._finish()
