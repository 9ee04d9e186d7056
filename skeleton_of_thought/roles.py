"""The opening and the closing of an answer: texts that are written from its points, and stand around them."""

from __future__ import annotations

from abc import abstractmethod
from typing import cast

from skeleton_of_thought import events
from skeleton_of_thought.adapters.finish_reasons import CUT, FAILED, FINAL, reply_error
from skeleton_of_thought.adapters.replies import ending
from skeleton_of_thought.errors import OpeningWritten, RoleError
from skeleton_of_thought.merging import MergeFlow, MergeWriting
from skeleton_of_thought.restarts import restart_answer
from skeleton_of_thought.text.assembly import POINT_BREAK
from skeleton_of_thought.text.loops import LoopGuard
from skeleton_of_thought.types import Call, Prompt, Reply, Role, Skeleton

__all__ = ["RoleWriting", "RolesFlow"]


class RoleWriting(MergeWriting):
    """The text of an opening or a closing under way. It is short, so the reader gets it as a whole.

    Args:
        prompt: The prompt of its call.
        material: Texts in the prompt that it may repeat.
        loops: Ends a text that repeats itself; None to keep it.
        words: The most words.
    """

    def __init__(self, prompt: Prompt, material: list[str], *, loops: LoopGuard | None, words: int) -> None:
        from skeleton_of_thought.text.length import LengthGuard

        super().__init__(prompt, material, quotable=False, loops=loops)
        self._length = LengthGuard(words)
        self._kept: list[str] = []

    @property
    def full(self) -> bool:
        """Whether the rest of the reply is of no use."""
        return self._length.full or self.fault is not None

    def _keep(self, text: str) -> str:
        if self.voided:
            self.voided, self._kept, self._length = False, [], self._length.fresh()
        super()._keep(text)
        self._kept.append(self._length.feed(text))
        return text

    def ended(self, reply: Reply) -> tuple[str, Exception | None]:
        """The whole text once its call has ended, and its fault; None if it has none."""
        self.close()
        text = "".join((*self._kept, self._length.close())).strip()
        reason = ending(reply)
        if self.fault is not None:
            return "", RoleError(str(self.fault).replace("merge prompt", "prompt"))
        if reason in FAILED or not text:
            return "", reply_error(reply)
        cut = reason in ("length", CUT)
        if cut or self._length.full:
            from skeleton_of_thought.text.length import whole_sentences

            text = whole_sentences(text) or ("" if cut else text)
        return text, None if text else RoleError("The model was cut within its first sentence. Allow it more tokens.")


class RolesFlow(MergeFlow):
    """The steps of the opening and the closing. The steps before them are those of `AnswerFlow`."""

    finished: bool
    _roles: dict[Role, RoleWriting | None]
    """The roles that are wanted; None for one whose call is not open."""

    @property
    @abstractmethod
    def _role_words(self) -> int:
        """The words of an opening or a closing."""

    @property
    @abstractmethod
    def _may_reason(self) -> bool:
        """Whether a text that is long enough is read on, as it may turn out to be reasoning."""

    def _open_roles(self) -> None:
        """Opens the calls of the roles that the settings ask for."""
        roles: list[Role] = ["opening"] if self.settings.opening else []
        roles += ["closing"] if self.settings.closing else []
        self._roles = dict.fromkeys(roles)
        for role in roles:
            if not self.finished:
                self._open_role(role)

    def _open_role(self, role: Role, attempt: int = 1) -> None:
        draft = self._draft
        self._actions.append(events.RoleStarted(role, attempt))
        skeleton, text = draft.skeleton or Skeleton(), draft.join(draft.written())
        try:
            prompt = self._prompts.role(role, skeleton, text, words=self._role_words)
            material = self._prompts.merge_material(skeleton, text)
            self._roles[role] = RoleWriting(prompt, material, loops=draft.loop_guard(), words=self._role_words)
        except Exception as error:  # of a template of the caller's: with all points written, no reason to lose them
            self._end_role(role, "", error)
        else:
            self._open(role, prompt, attempt=attempt)

    def _read_role(self, call: Call, text: str) -> None:
        writing = self._roles[cast(Role, call.stage)]
        assert writing is not None
        writing.feed(text)
        if writing.full and not self._may_reason:
            self._cancel(call)
            self._take_role(call, Reply())

    def _take_role(self, call: Call, reply: Reply) -> None:
        role = cast(Role, call.stage)
        writing = self._roles[role]
        assert writing is not None
        text, error = writing.ended(reply)
        if error is None:
            self._end_role(role, text, None)
        elif isinstance(error, RoleError) or ending(reply) in FINAL:
            # A model that repeats itself or its prompt, or that has refused, would most likely do so again.
            self._end_role(role, "", error)
        else:
            self._fail_role(call, error)

    def _fail_role(self, call: Call, error: Exception) -> None:
        role = cast(Role, call.stage)
        if call.attempt <= self.settings.max_retries:
            self._open_role(role, call.attempt + 1)
        else:
            self._end_role(role, "", error)

    def _end_role(self, role: Role, text: str, error: Exception | None) -> None:
        draft = self._draft
        self._roles.pop(role)
        if error is None:
            draft.roles[role] = text
        else:
            draft.role_errors[role] = error
        self._actions.append(events.RoleDone(role, text, error))
        if role == "opening" and not self.settings.merge:
            self._show_opening(text)
        if not self._roles:
            self._end_roles()

    def _show_opening(self, text: str) -> None:
        """Shows the opening and the points after it."""
        release = self._draft.release
        first = release.first_text
        if text and first is not None:
            self._actions += restart_answer(OpeningWritten("The opening comes before the points that were shown."))
            release.restart(self._draft.points.values())
        release.held = False
        self._show_text(text)
        self._actions += release.points(self._offset)
        if first is not None:
            release.first_text = first

    def _end_roles(self) -> None:
        """All roles have ended: the answer ends, or is merged."""
        if self._draft.release.held:
            self._open_merge()
            return
        if closing := self._draft.roles.get("closing"):
            self._show_text(POINT_BREAK + closing)
        self._finish()
