"""`sot route`: prints whether questions get a skeleton; no language model is loaded or called."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from typing import Any

from skeleton_of_thought._cli.diagnostics import as_line
from skeleton_of_thought._cli.streams import as_utf8
from skeleton_of_thought._cli.terminal_text import json_text
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.auto import AutoRouter
from skeleton_of_thought.routers.base import Router
from skeleton_of_thought.routers.cost import CostGuard
from skeleton_of_thought.routers.embedded import EmbeddedRouter
from skeleton_of_thought.routers.gate import Gate
from skeleton_of_thought.types import Conversation, ItemList, Request, RouteDecision

__all__ = ["COLUMNS", "route", "router_of"]

_LONGEST = 1 << 20
"""The most characters of a line of a CSV file."""
COLUMNS = ("index", "use_skeleton", "score", "reason")
"""The columns of the decisions as CSV. `planning` follows where the router may ask for a graph; then `items`, their
number, where some question is answered item by item."""
_FORMS = {
    "list": "{count} items of a list",
    "targets": "one text for {count} targets",
    "different": "{count} separate texts",
}
"""How the items of a question were found, by `ItemList.form`."""


def route(args: Namespace, question: str | None) -> int:
    """Prints the decision on a question, or those on all rows of a CSV file, as CSV or (`--json`) a JSON line each.

    Raises:
        InvalidInput: The question is empty, or the file cannot be read or lacks the column.
    """
    router = router_of(args)
    system = None if args.system is None else as_utf8(args.system, "The system message")
    request = Request(graph=args.planning in ("graph", "auto"), items=args.items == "auto")
    if args.csv is not None:
        decisions = _decisions(router, list(_questions(args.csv, args.column)), system, request)
        if args.json:
            for index, decision in enumerate(decisions):
                print(json_text(json.dumps({"index": index} | _as_dict(decision))))
        else:
            _write_csv(decisions, request)
        return 0
    assert question is not None
    decision = router.route(_conversation(question, system, request))
    if args.json:
        print(json_text(json.dumps(_as_dict(decision))))
    else:
        answer_route = "skeleton" if decision.use_skeleton else "direct"
        if decision.items is not None:
            answer_route = f"items ({_how(decision.items)})"
        elif decision.use_skeleton and decision.planning:
            answer_route += f" ({decision.planning})"
        score = "" if decision.score is None else f" (score {decision.score:.2f})"
        print(f"{answer_route}{score}: {as_line(decision.reason)}")
    return 0


def router_of(args: Namespace) -> Router:
    """The router that the options select."""
    if args.model is not None:
        from skeleton_of_thought import ClassifierRouter

        return AutoRouter(
            ClassifierRouter.from_pretrained(args.model, threshold=0.5 if args.threshold is None else args.threshold),
            gate=Gate() if args.gate else None,
            guard=CostGuard(),
        )
    router = EmbeddedRouter(args.threshold, weights=args.weights)
    return AutoRouter(router, gate=Gate() if args.gate else None, guard=CostGuard())


def _as_dict(decision: RouteDecision) -> dict[str, Any]:
    score = None if decision.score is None else round(decision.score, 4)
    fields: dict[str, Any] = {"use_skeleton": decision.use_skeleton, "score": score, "reason": decision.reason}
    if decision.planning:
        fields["planning"] = decision.planning
    if (items := decision.items) is not None:
        listed = [{"mark": item.mark, "title": item.title} for item in items.points]
        fields |= {"route": "items", "form": items.form, "language": items.language}
        fields |= {"instruction": items.instruction, "items": listed}
    return fields


def _how(items: ItemList) -> str:
    """How many items a question has, and how they were found."""
    return _FORMS[items.form].format(count=len(items))


def _conversation(question: str, system: str | None, request: Request) -> Conversation:
    return dataclasses.replace(Conversation.of(question, system=system), request=request)


def _questions(path: str, column: str) -> Iterator[str]:
    try:
        file = sys.stdin if path == "-" else open(path, newline="", encoding="utf-8-sig")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path!r} cannot be read: {error}") from error
    if file is None:
        raise InvalidInput("Standard input is closed: name a file by --csv.")
    with file:
        try:
            # Lines of a bounded length, since a device may never end one. The reader refuses them.
            reader = csv.DictReader(iter(partial(file.readline, _LONGEST), ""))
            columns = reader.fieldnames or ()
            if column not in columns:
                raise InvalidInput(
                    f"{path!r} has no column {column!r}, but {', '.join(map(repr, columns)) or 'none'}: "
                    "name it by --column."
                )
            for row in reader:
                yield as_utf8(row[column] or "", repr(path))
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            raise InvalidInput(f"{path!r} cannot be read: {error}") from error


def _decisions(router: Router, questions: list[str], system: str | None, request: Request) -> list[RouteDecision]:
    decisions = []
    for question in questions:
        try:
            decisions.append(router.route(_conversation(question, system, request)))
        except InvalidInput as error:  # an empty row has its own line too, and does not stop the others
            decisions.append(RouteDecision(False, reason=str(error)))
    return decisions


def _write_csv(decisions: list[RouteDecision], request: Request) -> None:
    more = ["planning"] * request.graph + ["items"] * any(decision.items for decision in decisions)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow((*COLUMNS, *more))
    for index, decision in enumerate(decisions):
        score = "" if (score := _as_dict(decision)["score"]) is None else score
        row = (index, "true" if decision.use_skeleton else "false", score, decision.reason)
        own = {"planning": decision.planning or "", "items": len(decision.items or ()) or ""}
        writer.writerow((*row, *(own[name] for name in more)))
