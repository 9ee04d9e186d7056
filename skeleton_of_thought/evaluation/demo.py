"""The questions of `sot eval --demo`."""

from __future__ import annotations

from skeleton_of_thought.evaluation.questions import Question

__all__ = ["QUESTIONS"]

QUESTIONS = tuple(
    Question(number, text, str(number), category)
    for number, (category, text) in enumerate(
        (
            ("advice", "How can I keep a small flat cool in summer?"),
            ("advice", "What should a family think about before it gets a dog?"),
            ("knowledge", "What are the effects of noise on people who live near a busy road?"),
            ("knowledge", "Why do some bridges have arches?"),
            ("short", "What is the capital of Portugal?"),
            ("writing", "Tell me a very short story about a lighthouse keeper."),
        ),
        1,
    )
)
"""Six questions: four whose answers are points, and two that a router should answer directly."""
