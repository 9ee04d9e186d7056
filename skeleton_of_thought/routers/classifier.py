"""`ClassifierRouter`: a Hugging Face sequence classification model as a router, and its training."""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from statistics import median
from typing import Any

# Before torch: this import names the extra if torch is missing, and sets how OpenMP waits.
from skeleton_of_thought.local.models import loading, without_questions  # isort: skip

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.local.private_tokenizer import private_copy
from skeleton_of_thought.parsing.mark import replace_surrogates
from skeleton_of_thought.routers.base import in_thread
from skeleton_of_thought.routers.comparisons import GRAPH, asks_for_graph
from skeleton_of_thought.routers.measures import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    LabelledQuestion,
    best_threshold,
    majority,
    measure,
)
from skeleton_of_thought.types import Conversation, RouteDecision

__all__ = ["THRESHOLD", "ClassifierRouter", "encode", "train_classifier", "tversky_loss"]

THRESHOLD = "sot_threshold"
"""The entry of a model's config with the lowest score that means a skeleton."""


class ClassifierRouter:
    """Decides with an encoder and its classification head, such as the paper's RoBERTa or one by `sot train-router`.

    The model has one logit, or several of which one means "use a skeleton". It runs on CPU or GPU. A router is safe to
    use from many threads.

    Args:
        model: A sequence classification model.
        tokenizer: Its tokenizer.
        threshold: The lowest score that means a skeleton.
        positive: The class that means "use a skeleton".
        max_length: The most tokens of a question for the model. A longer question is cut in the middle: the task
            stands before or after a long text.

    Raises:
        InvalidInput: The threshold is not from 0 to 1, or the model has no class `positive`.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, threshold: float = 0.5, positive: int = 1, max_length: int = 256
    ) -> None:
        if not 0 <= threshold <= 1:
            raise InvalidInput(f"threshold must be from 0 to 1, not {threshold!r}.")
        classes = model.config.num_labels
        if classes > 1 and not 0 <= positive < classes:
            raise InvalidInput(
                f"positive must be one of the model's {classes} classes, counted from 0, not {positive!r}."
            )
        self.threshold = threshold
        self._model = model.eval()
        self._tokenizer = private_copy(tokenizer)  # its padding and truncation are set on the object
        self._positive = positive
        self._max_length = min(max_length, getattr(model.config, "max_position_embeddings", max_length) - 2)
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        name: str | PathLike[str],
        *,
        threshold: float | None = None,
        positive: int = 1,
        max_length: int = 256,
        device: Any = None,
        **model_kwargs: Any,
    ) -> ClassifierRouter:
        """Loads a model from the hub or from a directory.

        Args:
            name: A hub id or a directory.
            threshold: The lowest score that means a skeleton; None for the threshold chosen in training, or 0.5 if the
                model's config has none.
            positive: The class that means "use a skeleton".
            max_length: The most tokens of a question for the model.
            device: The device of the model; None for the GPU if there is one.
            model_kwargs: Arguments of transformers' `from_pretrained`: `revision`, `token`, `local_files_only`, ...

        Raises:
            ModelLoadError: The model does not exist or cannot be loaded.
        """
        model_kwargs = without_questions(model_kwargs)
        with loading(name):
            tokenizer = AutoTokenizer.from_pretrained(name, **model_kwargs)
            model = AutoModelForSequenceClassification.from_pretrained(name, **model_kwargs)
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if threshold is None:
            threshold = getattr(model.config, THRESHOLD, 0.5)
        return cls(model.to(where), tokenizer, threshold=threshold, positive=positive, max_length=max_length)

    def route(self, conversation: Conversation) -> RouteDecision:
        """See `Router.route`. Where points may build on each other, a comparison gets a graph, whatever its score."""
        if conversation.request.graph and asks_for_graph(conversation.question):
            return GRAPH
        (score,) = self.scores([conversation.question])
        use = score >= self.threshold
        return RouteDecision(
            use, score, f"the classifier takes it for {'independent points' if use else 'no such points'}"
        )

    async def aroute(self, conversation: Conversation) -> RouteDecision:
        """Async twin of `route`, in a thread."""
        return await in_thread(partial(self.route, conversation))

    def scores(self, questions: Sequence[str], *, batch_size: int = 32) -> list[float]:
        """The probability (0 to 1) that a skeleton suits each question, in batches of `batch_size`."""
        found: list[float] = []
        for start in range(0, len(questions), batch_size):
            # A call changes the padding settings inside a fast tokenizer, so threads must take turns.
            with self._lock, torch.inference_mode():
                batch = encode(self._tokenizer, questions[start : start + batch_size], self._max_length)
                logits = self._model(**{key: value.to(self._model.device) for key, value in batch.items()}).logits
            found += self._probabilities(logits.float()).tolist()
        return found

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        if logits.shape[-1] == 1:
            return torch.sigmoid(logits[:, 0])
        return torch.softmax(logits, dim=-1)[:, self._positive]


def encode(tokenizer: Any, questions: Sequence[str], max_length: int) -> dict[str, torch.Tensor]:
    """Questions as a padded batch of tensors (questions, tokens), with long ones cut in the middle."""
    room = max_length - tokenizer.num_special_tokens_to_add()
    # No tokenizer reads half of a surrogate pair.
    readable = [replace_surrogates(question) for question in questions]
    texts = [_shortened(tokenizer, question, room) for question in readable]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    return {key: batch[key] for key in ("input_ids", "attention_mask")}


def _shortened(tokenizer: Any, text: str, room: int) -> str:
    # A token has at least one character, so most questions need no tokenization here.
    if len(text) <= room or not tokenizer.is_fast:
        return text
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    if len(offsets) <= room:
        return text
    # A word that is cut may have more tokens than before, hence the margin of four and the tokenizer's truncation.
    head = (room - 4) * 2 // 3
    tail = room - 4 - head
    return f"{text[: offsets[head - 1][1]]} ... {text[offsets[-tail][0] :]}"


# --- training -------------------------------------------------------------------------------------

_HELD_OUT = 0.15
_PATIENCE = 2
"""Epochs without a better validation loss before training ends."""
_TIMED = 50
"""Questions whose decision is timed."""


def train_classifier(
    labelled: Sequence[LabelledQuestion],
    *,
    base: str | PathLike[str],
    out: str | PathLike[str],
    test: Sequence[LabelledQuestion] | None = None,
    seed: int = 0,
    epochs: int = 6,
    batch_size: int = 16,
    learning_rate: float = 5e-5,
    max_length: int = 128,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Trains an encoder and saves it for `ClassifierRouter.from_pretrained`.

    The loss is the sum of a Tversky loss, as in the paper, and a cross-entropy with class weights, which has a
    gradient where the Tversky loss has none. Training keeps the epoch with the least loss on held-out questions and
    chooses the threshold on them.

    Args:
        labelled: Questions for training, 15 % of which are held out.
        base: A hub id or directory of an encoder.
        out: The directory to write.
        test: Questions for another measurement after training.
        seed: Seed for the split, the head and the order.
        epochs: The most epochs.
        batch_size: Questions per step.
        learning_rate: The highest rate; it rises for a tenth of the steps, then falls to zero.
        max_length: The most tokens of a question.
        report: Called with a line of text after each epoch.

    Returns:
        The report: measures on the held-out questions and on `test`, majority baselines, milliseconds per question.

    Raises:
        InvalidInput: There are fewer than four questions of either label.
        ModelLoadError: The base cannot be loaded.
    """
    report = report or (lambda line: None)
    train, held = _split(labelled, seed)
    torch.manual_seed(seed)
    with loading(base):
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, trust_remote_code=False)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    recipe = _Recipe(seed, epochs, batch_size, learning_rate, max_length)
    model.load_state_dict(_fit(model, tokenizer, (train, held), recipe, report))
    router = ClassifierRouter(model, tokenizer, max_length=max_length)
    scores = router.scores([one.question for one in held])
    threshold = best_threshold(scores, [one.use_skeleton for one in held], careful=False)
    setattr(model.config, THRESHOLD, threshold)
    Path(out).mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    saved = ClassifierRouter.from_pretrained(out, max_length=max_length)
    measures = {"base": str(base), "threshold": threshold, "questions": len(train), "held_out": _report(saved, held)}
    if test is not None:
        measures["test"] = _report(saved, test)
    measures["milliseconds"] = _milliseconds(saved, held)
    return measures


def tversky_loss(positive: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One minus the Tversky index of probabilities and labels (0.0 or 1.0), both of shape (questions,)."""
    hits = (positive * labels).sum()
    wrong = FALSE_POSITIVE * (positive * (1 - labels)).sum() + FALSE_NEGATIVE * ((1 - positive) * labels).sum()
    return 1 - (hits + 1) / (hits + wrong + 1)


def _split(labelled: Sequence[LabelledQuestion], seed: int) -> tuple[list[LabelledQuestion], list[LabelledQuestion]]:
    train: list[LabelledQuestion] = []
    held: list[LabelledQuestion] = []
    for label in (False, True):
        of = [one for one in labelled if one.use_skeleton == label]
        if len(of) < 4:
            raise InvalidInput(f"Training needs at least 4 questions of either label; there are {len(of)} of one.")
        random.Random(seed).shuffle(of)
        cut = max(1, round(len(of) * _HELD_OUT))
        held += of[:cut]
        train += of[cut:]
    return train, held


@dataclass(frozen=True)
class _Recipe:
    """The settings of a training, see `train_classifier`."""

    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    max_length: int


def _fit(
    model: Any,
    tokenizer: Any,
    split: tuple[list[LabelledQuestion], list[LabelledQuestion]],
    recipe: _Recipe,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Trains the model in place; returns the weights of the best epoch."""
    train, held = split
    order = random.Random(recipe.seed)
    share = sum(one.use_skeleton for one in train) / len(train)
    weights = torch.tensor([0.5 / (1 - share), 0.5 / share], device=model.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
    steps = recipe.epochs * -(-len(train) // recipe.batch_size)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    best: dict[str, Any] = copy.deepcopy(model.state_dict())
    least, waited = float("inf"), 0
    for epoch in range(1, recipe.epochs + 1):
        order.shuffle(train)
        model.train()
        for batch in _batches(train, recipe.batch_size):
            loss: Any = _loss(model, tokenizer, batch, weights, recipe.max_length)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        value = _held_out_loss(model, tokenizer, held, weights, recipe)
        report(f"epoch {epoch} of {recipe.epochs}: loss {value:.4f} on {len(held)} held-out questions")
        if value < least:
            best, least, waited = copy.deepcopy(model.state_dict()), value, 0
        elif (waited := waited + 1) >= _PATIENCE:
            break
    return best


def _held_out_loss(
    model: Any, tokenizer: Any, held: Sequence[LabelledQuestion], weights: torch.Tensor, recipe: _Recipe
) -> float:
    model.eval()
    with torch.inference_mode():
        losses = [
            float(_loss(model, tokenizer, batch, weights, recipe.max_length)) * len(batch)
            for batch in _batches(held, recipe.batch_size * 2)
        ]
    return sum(losses) / len(held)


def _batches(labelled: Sequence[LabelledQuestion], size: int) -> Iterator[Sequence[LabelledQuestion]]:
    return (labelled[start : start + size] for start in range(0, len(labelled), size))


def _loss(
    model: Any, tokenizer: Any, batch: Sequence[LabelledQuestion], weights: torch.Tensor, max_length: int
) -> torch.Tensor:
    inputs = encode(tokenizer, [one.question for one in batch], max_length)
    labels = torch.tensor([int(one.use_skeleton) for one in batch], device=model.device)
    logits = model(**{key: value.to(model.device) for key, value in inputs.items()}).logits.float()
    positive = torch.softmax(logits, dim=-1)[:, 1]
    return tversky_loss(positive, labels.float()) + torch.nn.functional.cross_entropy(logits, labels, weights)


def _report(router: ClassifierRouter, labelled: Sequence[LabelledQuestion]) -> dict[str, Any]:
    labels = [one.use_skeleton for one in labelled]
    scores = router.scores([one.question for one in labelled])
    decided = measure([score >= router.threshold for score in scores], labels, scores)
    return {"router": decided.to_dict(), "majority": majority(labels).to_dict()}


def _milliseconds(router: ClassifierRouter, labelled: Sequence[LabelledQuestion]) -> float:
    """The median time for a single question."""
    seconds = []
    for one in list(labelled)[:_TIMED]:
        began = time.perf_counter()
        router.scores([one.question])
        seconds.append(time.perf_counter() - began)
    return round(median(seconds) * 1000, 2)
