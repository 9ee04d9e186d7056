"""Memory that grows with requests: all of it has a bound, and what is kept for later prompts is counted in full."""

from __future__ import annotations

import functools
import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional

from skeleton_of_thought.adapters.adoption import Adoptions, NotAdopted
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.packed import PackedWeight, compiled_rows, packing_works
from skeleton_of_thought.local.prefix import reachable
from skeleton_of_thought.local.row import Row

packs = pytest.mark.skipif(not packing_works(torch.float32), reason="this torch packs no weights")


# --- products are compiled for few numbers of rows ---------------------------------------------------


def test_few_numbers_of_rows_are_compiled() -> None:
    rooms = [compiled_rows(rows) for rows in range(2049)]
    assert rooms[:17] == list(range(17))
    assert len({*rooms}) <= 70
    for rows, room in enumerate(rooms):
        assert rows <= room <= max(rows + 3, rows * 9 // 8)
    # Longer inputs than any forward has: a few numbers more for each doubling.
    assert len({compiled_rows(rows) for rows in range(1, 1 << 16, 7)}) <= 110


@packs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [True, False])
def test_filled_rows_change_no_product(dtype: torch.dtype, biased: bool) -> None:
    if not packing_works(dtype):
        pytest.skip("not on this processor")
    torch.manual_seed(1)
    weight, bias = torch.randn(48, 32).to(dtype), torch.randn(48).to(dtype) if biased else None
    packed, slack = PackedWeight(weight, bias), 1e-4 if dtype == torch.float32 else 0.3
    for rows in (0, 1, 16, 17, 19, 20, 33, 63, 65, 130, 257):
        x, other = torch.randn(rows, 32).to(dtype), torch.randn(rows, 48).to(dtype)
        wanted = functional.linear(x.float(), weight.float(), None if bias is None else bias.float())
        kept = x.clone(), other.clone()
        assert torch.allclose(packed(x).float(), wanted, atol=slack)
        assert torch.allclose(packed.add(x, other).float(), wanted + other.float(), atol=slack)
        assert torch.equal(x, kept[0])
        assert torch.equal(other, kept[1])
    deep = torch.randn(3, 7, 32).to(dtype)
    assert packed(deep).shape == (3, 7, 48)
    assert torch.allclose(packed(deep).float().view(21, 48), packed(deep.view(21, 32)).float(), atol=slack)
    across = torch.randn(32, 19).to(dtype).t()
    assert torch.allclose(packed(across).float(), packed(across.contiguous()).float(), atol=slack)


@packs
@pytest.mark.parametrize("optimize", ["lean", "packed"])
def test_an_engine_compiles_few_products(
    llama: Any, tokenizer: Any, optimize: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: set[tuple[int, ...]] = set()
    plain = PackedWeight.__init__

    def noting(self: PackedWeight, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        for name in ("_product", "_product_and"):
            product = getattr(self, name)

            def noted(x: torch.Tensor, *rest: Any, product: Any = product) -> torch.Tensor:
                compiled.add((x.numel() // x.shape[-1],))
                return product(x, *rest)

            setattr(self, name, noted)

    monkeypatch.setattr(PackedWeight, "__init__", noting)
    with LocalEngine(llama, tokenizer, optimize=optimize, prefix_cache_tokens=0) as engine:
        assert engine.optimization == optimize
        ids = tokenizer("river " * 400)["input_ids"]
        lengths = range(3, 150, 2)
        for length in lengths:
            engine.generate([tokenizer.decode(ids[:length])], max_new_tokens=1)
        prompts = [f"{tokenizer.decode(ids[length : 2 * length])} {length}" for length in range(3, 26)]
        engine.generate(prompts, max_new_tokens=3)
        forwards = engine.stats().forwards
    assert forwards > len(lengths)
    assert len(compiled) <= 16 + 4 + 8 + 8 * 3


# --- what is kept for later prompts --------------------------------------------------------------------


def storage_of(engine: LocalEngine) -> int:
    """The bytes of the memory that the kept beginnings hold, what their views do not show included."""
    found: dict[int, int] = {}
    for strip in reachable(engine._worker._store.strips):
        states = (state for layer in strip.states for state in layer if state is not None)
        for tensor in (*(part for pair in strip.layers for part in pair), *states):
            memory = tensor.untyped_storage()
            found[memory.data_ptr()] = memory.nbytes()
    return sum(found.values())


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("model", ["llama", "gpt2", "mistral", "qwen2"])
def test_kept_beginnings_hold_what_they_count(model: str, share: bool, tiny: Any, tokenizer: Any) -> None:
    shared = "The boat" + " river" * 60
    settings: dict[str, Any] = {"share_prefix": share, "prefix_cache_tokens": 600}
    with LocalEngine(tiny.make_model(model), tokenizer, **settings) as engine:
        for number in range(9):
            # Dialogues that go on, and other questions about the same text.
            engine.generate(
                [f"{shared} {'and then ' * (3 + number)}", f"{shared} why {number * 7919}"], max_new_tokens=12
            )
        store = engine._worker._store
        assert len(store.strips) > 2
        assert store.tokens <= 600
        assert storage_of(engine) <= 1.05 * store.tokens * engine._runner.text_bytes
        engine.generate(["x"], max_new_tokens=1)
        assert engine.stats().kv_bytes >= storage_of(engine)


# --- requests leave nothing else ------------------------------------------------------------------------


@pytest.fixture
def new_objects() -> Iterator[Callable[[], Counter[str]]]:
    """Counts the objects that were made since, which is quick: the others are out of the collector's sight."""

    def counts() -> Counter[str]:
        gc.collect()
        return Counter([type(found).__qualname__ for found in gc.get_objects()])

    gc.collect()
    gc.freeze()
    yield counts
    gc.unfreeze()


def test_requests_leave_no_objects(
    llama: Any, tokenizer: Any, tiny: Any, new_objects: Callable[[], Counter[str]]
) -> None:
    with LocalEngine(llama, tokenizer, prefix_cache_tokens=0) as engine:

        def ask(first: int) -> Counter[str]:
            for number in range(first, first + 20):
                engine.generate(
                    [f"Why {number}?", f"River {number * 31}"], max_new_tokens=4, temperature=0.7, seed=number
                )
            with engine.stream("A text that is left") as left:
                next(left)
            del left
            tiny.eventually(lambda: engine.stats().rows == 0 and new_objects()[Row.__qualname__] == 0)
            return new_objects()

        ask(0)
        before = ask(1000)
        more = ask(2000) - before
        # Fewer than one object for two of the forty requests: what Python itself keeps varies by a few.
        assert {name: count for name, count in more.items() if count >= 20} == {}


def test_reasons_that_differ_in_each_call_do_not_pile_up(caplog: Any) -> None:
    class Source:
        pass

    source, adoptions = Source(), Adoptions(logging.getLogger("adopted"))

    def refuse(number: int) -> None:
        raise NotAdopted(f"it has the setting {number}")

    for number in range(200):
        for _ in range(2):
            assert adoptions.attempt(source, "Source", functools.partial(refuse, number)) is None
    assert len(caplog.records) == 20
    assert len({record.message for record in caplog.records}) == 20
