"""Instances that share one loaded model."""

from __future__ import annotations

import gc
import pickle
import threading

import pytest
from langchain_core.load import dumpd

from langchain_sot import ChatTransformers, load_chain

torch = pytest.importorskip("torch", reason="the local engine needs torch")
transformers = pytest.importorskip("transformers", reason="the local engine needs transformers")


@pytest.fixture
def folder(local_models, tmp_path):
    """A saved model."""
    config = transformers.LlamaConfig(
        vocab_size=257, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, eos_token_id=0, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    local_models.make_tokenizer(local_models.PLAIN).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.fixture
def loads(monkeypatch):
    """The keyword arguments of every model that is loaded."""
    from skeleton_of_thought.local import engine

    made = []
    load_model = engine.load_model
    monkeypatch.setattr(engine, "load_model", lambda name, **kwargs: made.append(kwargs) or load_model(name, **kwargs))
    return made


def together(count, work):
    """The results of many threads that begin at once."""
    barrier, results = threading.Barrier(count), []

    def run():
        barrier.wait()
        results.append(work())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    return results


def test_many_threads_load_a_model_once_and_decode_in_one_batch(folder, loads, local_models):
    models = together(8, lambda: ChatTransformers(model=folder, max_tokens=40))
    assert len(loads) == 1
    assert len({id(llm.engine) for llm in models}) == 1
    with local_models.gathered(8):
        texts = together(8, iter_invoke(models))
    assert len(set(texts)) == 1
    assert models[0].engine.stats().peak_batch_size == 8
    models[0].engine.close()


def iter_invoke(models):
    left = list(models)
    return lambda: left.pop().invoke("Why?").text


def test_instances_share_an_engine_unless_their_loading_settings_differ(folder, loads):
    first = ChatTransformers(model=folder)
    assert ChatTransformers(model=folder, temperature=0.7, max_tokens=3).engine is first.engine
    wide = ChatTransformers(model=folder, model_kwargs={"dtype": "float64"})
    assert wide.engine is not first.engine
    assert wide.engine.model.dtype == torch.float64
    small = ChatTransformers(model=folder, model_kwargs={"kv_memory": 10_000_000, "optimize": "none"})
    assert small.engine.optimization == "none"
    assert len({id(llm.engine) for llm in (first, wide, small)}) == 3
    # The same settings in another form.
    same = ChatTransformers(model=folder, model_kwargs={"dtype": torch.float64})
    assert same.engine is wide.engine
    other = ChatTransformers(model=folder, model_kwargs={"optimize": "none", "kv_memory": 10_000_000})
    assert other.engine is small.engine
    assert len(loads) == 3


def test_a_model_is_freed_with_its_last_reference(folder, loads):
    llm = ChatTransformers(model=folder)
    llm.invoke("Why?", max_tokens=1)
    del llm
    gc.collect()
    ChatTransformers(model=folder)
    assert len(loads) == 2


def test_copies_use_the_engine_of_their_settings(folder):
    llm = ChatTransformers(model=folder, model_kwargs={"dtype": "float64"})
    assert pickle.loads(pickle.dumps(llm)).engine is llm.engine
    again = load_chain(dumpd(llm))
    assert again.engine is llm.engine
    assert again.model_kwargs == {"dtype": "float64"}


def test_an_engine_and_loading_settings_exclude_each_other(folder):
    engine = ChatTransformers(model=folder).engine
    with pytest.raises(ValueError, match="leave out either"):
        ChatTransformers(engine=engine, model_kwargs={"dtype": "float64"})


def test_invalid_loading_settings_are_refused_at_once(folder):
    with pytest.raises(ValueError, match="optimize is"):
        ChatTransformers(model=folder, model_kwargs={"optimize": "magic"})
