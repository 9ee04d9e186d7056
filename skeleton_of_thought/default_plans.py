"""The default prompts of planned answers: skeletons with notes and dependencies, and the texts written from points."""

from __future__ import annotations

from skeleton_of_thought.default_prompts import POINT, SKELETON
from skeleton_of_thought.examples import Example, FewShot
from skeleton_of_thought.templates import PromptTemplate
from skeleton_of_thought.types import Point

__all__ = [
    "CLOSING",
    "GRAPH",
    "MISSING",
    "OPENING",
    "PARENTS",
    "PLANNED_POINT",
    "REWRITE",
    "SCOPED",
    "STRUCTURED_GRAPH",
    "STRUCTURED_SCOPED",
]

_PLAN = "{question}\n\nPlan the answer, do not write it: {how_many} different points"
_NOTE = (
    "a note of at most 12 words on what the point covers and, where another point is close, what it leaves to that one"
)
_BUILDS_ON = (
    "Most points stand alone. Only a comparison, a recommendation or a summary builds on others: it comes after them"
)
_LINES = (
    ", each on one numbered line: a heading of 2 to 5 words, a colon, and " + _NOTE + ". An example of such a line:\n\n"
    "2. Worn brake pads: how thin is too thin; prices are left to point 6"
)
_AND_AFTER = (
    "\n\n" + _BUILDS_ON + ", its line ends with their numbers, and no other point builds on it. An example:\n\n"
    "4. Which one to choose: who is better off with which (after 1, 3)"
)

_SCOPED_TURN = (
    "{question}\n\nWrite only the plan of the answer: {how_many} different numbered points, each a heading of 2 to 5 "
    "words, a colon, and a few words on what it covers."
)
"""Shorter than for large models: small ones follow the examples, and a long instruction leads them astray."""
_GRAPH_TURN = (
    _SCOPED_TURN + " The last point draws the conclusion: end it with the points that it needs, as (after 1, 2, 3)."
)

_BICYCLE = "What should I check before I buy a used bicycle?"
_PETS = "Should we get a cat or a dog?"
_PRINTING = "How did the printing press change Europe?"

# Of the notes that were tried, short clauses gave the demo model the most skeletons with a note on each line.
_SCOPED_EXAMPLES = (
    Example(
        _BICYCLE,
        (
            Point(1, "Rust on the frame", scope="where it hides"),
            Point(2, "Worn brake pads", scope="how thin is too thin"),
            Point(3, "Loose spokes and tyres", scope="what your hands can feel"),
            Point(4, "The right size", scope="saddle height and reach"),
            Point(5, "A fair price", scope="what each fault takes off it"),
        ),
    ),
    Example(
        _PETS,
        (
            Point(1, "Daily care", scope="feeding, walks and cleaning"),
            Point(2, "Yearly costs", scope="food, vet and insurance"),
            Point(3, "Space at home", scope="rooms, garden and neighbours"),
            Point(4, "Which one to choose", scope="who is better off with which"),
        ),
    ),
    Example(
        _PRINTING,
        (
            Point(1, "Cheaper books", scope="why prices fell"),
            Point(2, "More readers", scope="schools and towns"),
            Point(3, "Faster science", scope="letters, journals and errors"),
            Point(4, "Fears of the rulers", scope="censors and revolts"),
            Point(5, "What matters most", scope="the change that lasted"),
        ),
    ),
)

_PETS_POINTS = (
    Point(1, "Daily care", scope="feeding, walks, cleaning"),
    Point(2, "Yearly costs", scope="food, vet, insurance"),
    Point(3, "Space at home", scope="rooms, garden, neighbours"),
    Point(4, "Holidays and work", scope="long days, journeys, sitters"),
    Point(5, "Which one to choose", (1, 2, 4), scope="families, workers, travellers"),
)
# A list of nouns leaves the demo model more often at the end of a line, where the points that it needs stand. It copies
# the last title of the last example, so that title suits any question.
_GRAPH_EXAMPLES = (
    Example(
        _BICYCLE,
        (
            Point(1, "Rust on the frame", scope="welds, joints, the underside"),
            Point(2, "Worn brake pads", scope="thickness, squeaks, the rim"),
            Point(3, "The right size", scope="saddle height, reach, comfort"),
            Point(4, "A fair price", (1, 2, 3), scope="faults, repairs, offers"),
        ),
    ),
    Example(_PETS, _PETS_POINTS),
    Example(
        _PRINTING,
        (
            Point(1, "Cheaper books", scope="paper, presses, prices"),
            Point(2, "More readers", scope="schools, towns, languages"),
            Point(3, "Faster science", scope="journals, errors, letters"),
            Point(4, "Fears of the rulers", scope="censors, pamphlets, revolts"),
            Point(5, "What matters most", (1, 2, 3), scope="power, belief, knowledge"),
        ),
    ),
)

SCOPED = PromptTemplate(
    text=_PLAN + _LINES,
    prefill="1.",
    instead="",
    hints=SKELETON.hints,
    # A line with its note takes about half of that.
    tokens_per=("max_points", 40),
    few_shot=FewShot(text=_SCOPED_TURN, examples=_SCOPED_EXAMPLES),
)

GRAPH = PromptTemplate(
    text=_PLAN + _LINES + _AND_AFTER,
    prefill="1.",
    instead="",
    hints=SKELETON.hints,
    tokens_per=("max_points", 44),
    few_shot=FewShot(text=_GRAPH_TURN, examples=_GRAPH_EXAMPLES),
)

STRUCTURED_SCOPED = PromptTemplate(
    text=_PLAN + " in order, each with a heading of 2 to 5 words and " + _NOTE + ".",
    tokens_per=("max_points", 80),
)
"""For the plan as data: the schema gives the form, so the prompt asks for none."""

STRUCTURED_GRAPH = PromptTemplate(
    text=_PLAN
    + " in order, each with a heading of 2 to 5 words, "
    + _NOTE
    + ", and the numbers of the points that it builds on.\n\n"
    + _BUILDS_ON
    + ", and no other point builds on it. All others have no such numbers.",
    tokens_per=("max_points", 88),
)

PLANNED_POINT = PromptTemplate(
    text=(
        "{question}\n\n"
        "The answer is planned as these points:\n\n{plan}\n\n"
        'Write only the text of point {index}, "{title}", and leave to each other point what its line covers: '
        "{how_long}, at most {words} words."
    ),
    prefill=POINT.prefill,
    instead=POINT.instead,
    hints=POINT.hints,
    tokens_per=POINT.tokens_per,
    few_shot=FewShot(
        opening=(_SCOPED_TURN, "{plan}"),
        text="In {how_long}, explain: {heading}",
        examples=(
            Example(
                _PETS,
                _PETS_POINTS,
                (
                    "A dog needs two or three walks every day, in any weather, while a cat needs a clean tray and two "
                    "meals.",
                    "Brushing takes a few minutes a week for most breeds of either animal.",
                    "Both want to play for a quarter of an hour, best at the same time each evening.",
                    "Puppies and kittens double all of this during their first months at home.",
                    "Agree beforehand who gets up early, because the animal will not wait.",
                    "Children help gladly for a week; plan as if they did not.",
                ),
                1,
            ),
            Example(
                _PETS,
                _PETS_POINTS,
                (
                    "Choose a cat if nobody can be home at noon, for two meals and a clean tray are soon done.",
                    "Choose a dog if you like being outdoors twice a day, rain or shine.",
                    "A family that is often away at weekends is better off with a cat and a kind neighbour.",
                    "If money decides, the cat wins in most years, since it needs neither school nor lead.",
                    "If someone works from home and wants company, the dog gives more of it.",
                    "When you still cannot tell, borrow a friend's dog for a week first.",
                ),
                5,
            ),
        ),
    ),
)

PARENTS = (
    "These points of the answer are written already:\n\n{parents}\n\n"
    "Build on what they say, and do not repeat it or contradict it."
)

MISSING = "Nothing is known about what these points say, so do not rely on them: {missing}"

REWRITE = 'Another point of the answer says already: "{passage}". Leave that out, and write what only this point adds.'

_DRAFT = "{question}\n\nThe points of the answer to this:\n\n{draft}\n\n"

OPENING = PromptTemplate(
    text=_DRAFT + "Write what stands before them: {how_long} to lead into them, at most {words} words, with nothing "
    "that they do not say. Write only that, without a greeting or a heading.",
    tokens_per=("words", 3),
    hints=POINT.hints,
)

CLOSING = PromptTemplate(
    text=_DRAFT + "Write what stands after them: a conclusion of {how_long}, at most {words} words, that says what "
    "follows from them for the question, with nothing that they do not say. Write only that, without a heading.",
    tokens_per=("words", 3),
    hints=POINT.hints,
)
