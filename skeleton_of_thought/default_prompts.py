"""The default prompts, with their examples."""

from __future__ import annotations

from skeleton_of_thought.examples import Example, FewShot
from skeleton_of_thought.templates import PromptTemplate
from skeleton_of_thought.types import Hints

__all__ = ["CONTEXT", "DIRECT", "MERGE", "POINT", "SKELETON", "STRUCTURED"]

_BICYCLE = "What should I check before I buy a used bicycle?"

_BICYCLE_TITLES = (
    "Rust on the frame",
    "Worn brake pads",
    "Loose spokes and flat tyres",
    "Smooth gear changes",
    "The right size",
    "A fair price",
)

_PRINTING = "How did the printing press change Europe?"

_PRINTING_TITLES = (
    "Cheaper books",
    "More people who read",
    "Faster spread of science",
    "New religious movements",
    "Standard spelling",
    "The first newspapers",
    "Fears of the rulers",
)

_HEADINGS = (
    "{question}\n\nWrite only the headings of the answer: {how_many} different headings of 2 to 5 words, numbered."
)

SKELETON = PromptTemplate(
    text=_HEADINGS,
    prefill="1.",
    instead="",
    hints=Hints(
        stop=("\n\n",),
        # About as many as three headings have.
        min_tokens=20,
        # Without penalties small models repeat a heading until they are stopped. A larger frequency penalty makes
        # them avoid line ends, and so end the list early.
        frequency_penalty=0.2,
        presence_penalty=1.5,
    ),
    # A heading takes about half of that; a model that writes something else stops here.
    tokens_per=("max_points", 12),
    few_shot=FewShot(
        examples=(Example(_BICYCLE, _BICYCLE_TITLES), Example(_PRINTING, _PRINTING_TITLES)),
    ),
)

STRUCTURED = PromptTemplate(
    text="{question}\n\nGive only the headings of the answer, in order: {how_many} different headings of 2 to 5 words.",
    # A model that does not follow the schema repeats itself up to this limit.
    tokens_per=("max_points", 24),
)
"""For the skeleton as data: the schema gives the form, so the prompt asks for none."""

POINT = PromptTemplate(
    text=(
        "{question}\n\n"
        "The answer has these headings: {titles}.\n\n"
        'Write only what stands under the heading "{title}": {how_long}, at most {words} words.'
    ),
    prefill='"{title}" -',
    instead=" Begin with the text itself, without number or heading.",
    # A small model sometimes repeats the title and ends there.
    hints=Hints(stop=("\n",), min_tokens=10, frequency_penalty=0.5, presence_penalty=0.8),
    tokens_per=("words", 3),
    few_shot=FewShot(
        # The point is the next turn after the skeleton: with the skeleton in the same turn as the point's title, a
        # small model copies the other titles.
        opening=(_HEADINGS, "{skeleton}"),
        text="In {how_long}, explain: {title}",
        # Two points of one answer show that each text keeps to its own heading.
        examples=(
            Example(
                _BICYCLE,
                _BICYCLE_TITLES,
                (
                    "Brake pads wear thin with use and then scratch the rim, which costs far more than new pads.",
                    "Squeeze both levers hard and look for deep grooves along the rim before you pay.",
                    "Each pad should meet the metal flat and at the same time as the other.",
                    "A lever that touches the handlebar needs a new cable, which any shop fits in a few minutes.",
                    "Ride slowly downhill and stop with one brake, then with the other: a squeal is harmless, a "
                    "shudder is not.",
                    "Ask when the pads were last changed; a seller who knows has looked after the rest as well.",
                ),
                2,
            ),
            Example(
                _BICYCLE,
                _BICYCLE_TITLES,
                (
                    "The right size lets you stand over the top tube with both feet flat on the ground.",
                    "Too large a bicycle never becomes comfortable, whatever you adjust, so ride a few metres before "
                    "you decide.",
                    "With the saddle set, your knee stays slightly bent at the lowest point of the pedal.",
                    "Reach for the handlebar: your elbows should be soft, and your shoulders should not rise.",
                    "A saddle and a stem can be changed for little money, a frame that is too long cannot.",
                    "If you fall between two sizes, take the smaller one, which is easier to steer and to lift.",
                ),
                5,
            ),
        ),
    ),
)

MERGE = PromptTemplate(
    text=(
        "{question}\n\n"
        # The draft comes last. Otherwise a small model replies to the instruction instead of rewriting the draft.
        "The parts of the answer below were written separately. Rewrite it as one text that reads smoothly: leave out "
        "what is said twice, keep all else, the order and the form. Write only the text.\n\n{draft}"
    ),
    # Well over the draft's length in most languages. A model in a loop stops here.
    tokens_per=("draft", 1),
    hints=Hints(frequency_penalty=0.2),
)

DIRECT = PromptTemplate("{question}")

CONTEXT = "<context>\n{context}\n</context>\n\nKeep to the facts in the context."
