"""The engine's benchmarks: their columns, their skipped columns, and their counts."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the benchmarks need torch")
pytest.importorskip("transformers", reason="the benchmarks need transformers")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).parent.parent
SERVERS = {"llama.cpp", "llama.cpp f16"}
COLUMNS = {"sequential", "threads", "padded", "continuous", "vllm", "engine", "engine bf16", "engine f16", "copied"}
WORDS = ["boat", "bread", "river", "leaf", "stone", "cloud", "salt", "water", "tree", "summer", "winter", "house"]
CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def part(name: str) -> Any:
    """A module of the benchmark."""
    return importlib.import_module(name)


def make_tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([" ".join([word] * 9) for word in WORDS], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model."""
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=None, eos_token_id=0, pad_token_id=0, max_position_embeddings=8192,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def benchmark(*arguments: str) -> dict[str, Any]:
    """The JSON that a run prints last."""
    command = [sys.executable, "benchmarks/engine.py", *arguments]
    # Tiny models gain nothing from more threads, and on a busy machine they lose a lot.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


class CompletionServer(ThreadingHTTPServer):
    """Serves the part of OpenAI's completions that the benchmark uses, and records the requests."""

    daemon_threads = True

    def __init__(self, *, window: int = 10_000, forgets: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.window, self.forgets = window, forgets
        self.asked: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: CompletionServer

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, json.dumps({"data": [{"id": "tiny"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        if len(body["prompt"]) + body["max_tokens"] > self.server.window:
            self._send(400, json.dumps({"error": "the window is too short"}))
            return
        count = body["max_tokens"] - self.server.forgets
        chunks: list[Any] = [{"choices": [{"text": " word"}]} for _ in range(count)]
        chunks.append({"choices": [], "usage": {"completion_tokens": count}})
        self._send(200, "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n")

    def _send(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def serving(server: CompletionServer) -> Iterator[CompletionServer]:
    """Ends the server after any error: its thread would keep the interpreter alive."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[CompletionServer]:
    with serving(CompletionServer()) as server:
        yield server


@pytest.fixture(scope="module")
def narrow(model: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """A run with a server whose window fits only the shorter prompts, and the server's requests."""
    with serving(CompletionServer(window=90)) as server:
        result = benchmark(
            *("--model", str(model), "--vllm", server.url, "--columns", "vllm,engine", "--rows", "3"),
            *("--prefixes", "20,80", "--tails", "mixed", "--tokens", "5", "--repeats", "3", "--answers", "0"),
        )
        yield result, server.asked


# --- whole runs ------------------------------------------------------------------------------------------


def test_every_column_is_measured_or_says_why_not(model, server):
    result = benchmark(
        *("--model", str(model), "--vllm", server.url, "--rows", "1,3", "--prefixes", "20"),
        *("--tails", "equal,mixed", "--tokens", "4", "--repeats", "2", "--patience", "1000"),
    )
    skipped = result["skipped"]
    assert set(skipped) - {"copied"} == SERVERS
    assert all("GGUF" in skipped[name] or "xllamacpp" in skipped[name] for name in SERVERS)
    cells = [cell for cell in result["cells"] if "copied" not in cell["tokens_per_second"]]
    assert [(c["rows"], c["prefix"], c["tails"]) for c in cells] == [
        (rows, 20, tails) for tails in ("equal", "mixed") for rows in (1, 3)
    ]
    for cell in cells:
        measured = COLUMNS - {"copied"}
        assert cell["skipped"] == {}
        assert set(cell["tokens_per_second"]) == set(cell["engine_over"]) | {"engine"} == measured
        assert cell["repeats"] == dict.fromkeys(measured, 2)
        assert cell["rows_measured"] == dict.fromkeys(measured, cell["rows"]) | {"sequential": min(2, cell["rows"])}
        assert all(rate > 0 for rate in cell["tokens_per_second"].values())
        assert cell["limited_by"] in ("bytes", "flops")
        assert cell["step_ms"]["padded"] > 0
    assert result["answer"]["tokens"] == 40 + 8 * 64
    assert {name: len(seconds) for name, seconds in result["answer"]["seconds"].items()} == {"normal": 1, "engine": 1}


def test_each_server_run_sends_new_prompts_of_the_right_lengths(narrow):
    _, asked = narrow
    counted = [request for request in asked if request["max_tokens"] == 5 and len(request["prompt"]) <= 80]
    groups = [counted[i : i + 3] for i in range(0, len(counted), 3)]
    assert len(groups) == 3
    prefixes = [{tuple(request["prompt"][:20]) for request in group} for group in groups]
    assert [len(prefix) for prefix in prefixes] == [1, 1, 1]
    assert len({prefix.pop()[0] for prefix in prefixes}) == 3
    assert [sorted(len(request["prompt"]) - 20 for request in group) for group in groups] == [[5, 33, 60]] * 3
    assert all(request["ignore_eos"] and request["temperature"] == 0 for request in counted)


def test_a_failed_column_is_reported_and_the_others_run(narrow):
    result, _ = narrow
    short, long = result["cells"]
    assert set(short["tokens_per_second"]) == {"vllm", "engine"}
    assert set(long["tokens_per_second"]) == {"engine"}
    assert long["repeats"] == {"engine": 3}
    assert "answered 400" in long["skipped"]["vllm"]
    assert "too short" in long["skipped"]["vllm"]
    assert "--answers" in result["answer"]["skipped"]


@pytest.mark.model
def test_llama_cpp_decodes_the_demo_models_weights():
    pytest.importorskip("xllamacpp", reason="its server is not installed: pip install xllamacpp")
    result = benchmark(
        *("--columns", "llama.cpp,engine", "--rows", "2", "--prefixes", "20", "--tokens", "4", "--repeats", "1"),
        *("--answers", "0"),
    )
    assert result["skipped"] == {}
    assert set(result["cells"][0]["tokens_per_second"]) == {"llama.cpp", "engine"}


# --- its parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tails", ["equal", "mixed"])
@pytest.mark.parametrize("rows", [1, 5, 16])
def test_prompts_have_the_requested_lengths(tails, rows):
    workload = part("workload")
    tokenizer = make_tokenizer()
    maker = workload.Workload(tokenizer)
    lengths = workload.tail_lengths(tails, rows)
    assert len(lengths) == rows
    assert (set(lengths) == {15}) == (tails == "equal" or rows == 1)
    assert max(lengths) <= workload.longest_tail()
    made = [maker.prompts(33, lengths) for _ in range(4)]
    for prompts in made:
        assert [len(ids) for ids in prompts.ids] == [33 + length for length in lengths]
        assert [tuple(tokenizer(text)["input_ids"]) for text in prompts.texts] == list(prompts.ids)
        assert len({ids[:33] for ids in prompts.ids}) == 1
        assert len({ids[33] for ids in prompts.ids}) >= min(rows, len(WORDS))
    assert len({prompts.ids[0][0] for prompts in made}) == len(made)


def test_a_bos_token_counts_as_part_of_the_prefix():
    tokenizer = make_tokenizer()
    processor = importlib.import_module("tokenizers").processors
    core = tokenizer.backend_tokenizer
    core.post_processor = processor.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 0)])
    prompts = part("workload").Workload(tokenizer).prompts(12, [3])
    assert prompts.ids[0][0] == 0
    assert len(prompts.ids[0]) == 15


def tiny_llama(*, tied: bool) -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=tied,
        )
    )  # fmt: skip


def test_a_step_reads_every_weight_once_except_embeddings():
    shape = part("limit").Shape.of
    tied, untied = shape(tiny_llama(tied=True)), shape(tiny_llama(tied=False))
    layer = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24 + 2 * 16
    assert tied.weights == untied.weights == 3 * layer + 16 + 100 * 16
    assert (tied.itemsize, tied.kv_values, tied.attention) == (4, 2 * 3 * 2 * 4, 4 * 3 * 16)
    positions = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=16, n_layer=1, n_head=2, n_positions=50))
    assert shape(positions).weights == sum(p.numel() for p in positions.parameters()) - 50 * 16


def test_the_limit_counts_a_shared_prefix_once_in_bytes_and_for_every_row_in_operations():
    limit = part("limit")
    shape = limit.Shape(weights=1000, itemsize=4, kv_values=10, attention=6)
    own = [5.0, 7.0]
    assert shape.step_bytes(100, own) == 4 * (1000 + 112 * 10)
    assert shape.step_flops(100, own) == 2 * 1000 * 2 + 6 * 212
    slow_memory, slow_cores = limit.Machine(1.0, 1e9), limit.Machine(1e9, 1.0)
    assert shape.step_seconds(slow_memory, prefix=100, tails=[3, 5], tokens=4) == (4 * (1000 + 112 * 10), "bytes")
    assert shape.step_seconds(slow_cores, prefix=100, tails=[3, 5], tokens=4) == (2 * 1000 * 2 + 6 * 212, "flops")


class Ways:
    """Columns that record the order of their calls, and report these times."""

    def __init__(self, **seconds: float) -> None:
        self.calls: list[str] = []
        self.columns = {name: self._column(name, took) for name, took in seconds.items()}

    def _column(self, name: str, took: float) -> Any:
        def run(prompts: Any, tokens: int) -> Any:
            self.calls.append(name)
            return part("columns").Run(len(prompts.ids) * tokens, took, took / tokens)

        return run


def measure(ways: Ways, *names: str, repeats: int = 3) -> Any:
    cells, limit = part("cells"), part("limit")
    return cells.measure(
        cells.Cell(4, 10, "equal", names),
        ways.columns,
        workload=part("workload").Workload(make_tokenizer()),
        shape=limit.Shape(weights=1000, itemsize=4, kv_values=10, attention=6),
        probe=lambda: limit.Machine(1e6, 1e6),
        tokens=8,
        repeats=repeats,
        patience=10.0,
    )


def test_the_columns_take_turns_in_being_first():
    ways = Ways(padded=1.0, threads=2.0, engine=0.5)
    done = measure(ways, "padded", "threads", "engine", "vllm")
    assert ways.calls == [
        *("padded", "threads", "engine"),
        *("threads", "engine", "padded"),
        *("engine", "padded", "threads"),
    ]
    assert done.rate("engine") == 4 * 8 / 0.5
    assert done.ratio("threads") == 4.0
    assert done.share == done.limit / (0.5 / 8)
    assert done.rate("vllm") is None


def test_a_slow_column_is_not_repeated():
    ways = Ways(threads=11.0, engine=1.0)
    done = measure(ways, "threads", "engine")
    assert ways.calls.count("threads") == 1
    assert done.as_dict()["repeats"] == {"threads": 1, "engine": 3}


def test_a_column_that_decodes_too_few_tokens_has_no_figure():
    ways = Ways(padded=1.0, sequential=1.0)  # of four rows, `sequential` is to decode two
    done = measure(ways, "padded", "sequential")
    assert set(done.runs) == {"padded"}
    assert "decoded 32 tokens, not 16" in done.skipped["sequential"]
    assert ways.calls.count("sequential") == 1


def test_a_step_is_timed_while_all_rows_decode():
    gap = part("columns")._common_gap
    assert gap([[0.0, 1.0, 2.0, 5.0], [1.0, 2.0, 4.0]]) == pytest.approx((1.0 + 1.0 + 2.0) / 3)
    assert gap([[0.0, 1.0], [2.0, 3.0]]) is None
    assert gap([[], [2.0, 3.0]]) is None


# --- servers ---------------------------------------------------------------------------------------------


def test_a_server_that_sends_too_little_or_nothing_is_an_error(server):
    servers = part("servers")
    assert servers.served_model(server.url) == "tiny"
    done = servers.complete(server.url, "tiny", [[1, 2], [3]], 5)
    assert [row.tokens for row in done] == [5, 5]
    assert all(len(row.times) == 5 and all(a <= b for a, b in pairwise(row.times)) for row in done)
    server.window = 4
    with pytest.raises(servers.ServerError, match="answered 400"):
        servers.complete(server.url, "tiny", [[1, 2]], 5)
    with pytest.raises(servers.ServerError, match="lists no model"):
        servers.served_model("http://127.0.0.1:9/v1")


def test_a_float32_copy_has_the_same_weights_and_description(tmp_path):
    gguf, numpy = pytest.importorskip("gguf"), pytest.importorskip("numpy")
    weights = numpy.array([random.Random(i).random() for i in range(64 * 32)], dtype="float32").reshape(64, 32)
    packed = gguf.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
    writer = gguf.GGUFWriter(tmp_path / "small.gguf", "llama")
    writer.add_block_count(2)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "Ġc"])
    writer.add_token_types([1, 1, 3])
    writer.add_add_bos_token(False)
    writer.add_tensor("token_embd.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", weights[0])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    part("servers").write_weights(tmp_path / "small.gguf", tmp_path / "copy.gguf")

    small, copy = gguf.GGUFReader(tmp_path / "small.gguf"), gguf.GGUFReader(tmp_path / "copy.gguf")
    assert {t.tensor_type.name for t in copy.tensors} == {"F32"}
    assert [t.name for t in copy.tensors] == [t.name for t in small.tensors]
    assert numpy.array_equal(copy.tensors[0].data, gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
    assert numpy.array_equal(copy.tensors[1].data, weights[0])
    assert set(copy.fields) == set(small.fields)
    changed = {name for name in small.fields if small.fields[name].contents() != copy.fields[name].contents()}
    assert changed == {"general.file_type"}
    assert all(copy.fields[name].types == small.fields[name].types for name in small.fields)

    part("servers").write_weights(tmp_path / "small.gguf", tmp_path / "half.gguf", "float16")

    half = gguf.GGUFReader(tmp_path / "half.gguf")
    assert [t.tensor_type.name for t in half.tensors] == ["F16", "F32"]
    assert numpy.array_equal(half.tensors[0].data, copy.tensors[0].data.astype("float16"))
    assert half.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_F16


def test_the_error_of_a_server_that_cannot_start_gives_the_reason(tmp_path):
    servers = part("servers")
    (tmp_path / "none.gguf").write_bytes(b"not a model")
    settings = {"slots": 1, "context": 64, "threads": 1, "log": tmp_path / "log"}
    with pytest.raises(servers.ServerError, match="ended with"), servers.llama_cpp(tmp_path / "none.gguf", **settings):
        pass


@pytest.mark.model
def test_a_server_ends_with_its_block(tmp_path):
    pytest.importorskip("xllamacpp", reason="its server is not installed: pip install xllamacpp")
    servers, demo = part("servers"), importlib.import_module("skeleton_of_thought.local.models").demo_model_path()
    with servers.llama_cpp(demo, slots=2, context=256, threads=1, log=tmp_path / "log") as url:
        assert [row.tokens for row in servers.complete(url, "model", [[100, 200], [300]], 3)] == [3, 3]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url + "/health", timeout=5).close()
        except OSError:
            return
    pytest.fail("the server still answers")


@pytest.mark.model
def test_the_chain_on_the_servers_page_runs(tmp_path, capsys):
    pytest.importorskip("xllamacpp", reason="its server is not installed: pip install xllamacpp")
    pytest.importorskip("langchain_openai", reason="the chain's client is not installed")
    servers, demo = part("servers"), importlib.import_module("skeleton_of_thought.local.models").demo_model_path()
    page = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert block is not None
    code = block[1].replace('model="smol"', 'model="model"').replace("max_tokens=120", "max_tokens=12, temperature=0")
    with servers.llama_cpp(demo, slots=8, context=1024, threads=2, log=tmp_path / "log") as url:
        names: dict[str, Any] = {}
        exec(compile(code.replace("http://127.0.0.1:8000", url), "servers.md", "exec"), names)
        assert names["llm"].openai_api_base == url + "/v1"
    assert capsys.readouterr().out.strip()


# --- options of other libraries ---------------------------------------------------------------------------


def test_the_options_benchmark_reports_times_and_errors(model: Path) -> None:
    command = [sys.executable, "benchmarks/options.py", "--model", str(model), "--rows", "1,2", "--prefix", "20",
               "--steps", "4", "--ways", "eager,bfloat16,torchao int8,packed,lean,lean float16"]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert set(report["rows"]) == {"1", "2"}
    for table in report["rows"].values():
        assert {"eager", "bfloat16"} <= set(table)
        assert set(table) | set(report["skipped"]) == {
            *("eager", "bfloat16", "torchao int8", "packed", "lean", "lean float16")
        }
        for name, row in table.items():
            assert row["ms"] > 0
            assert row["ratio"] == pytest.approx(row["sdpa_ms"] / row["ms"], abs=0.2, rel=0.3)
            # The error is small for another order of summation, and larger at lower precision.
            assert (row["error"] < 1e-4) == (name in ("eager", "packed", "lean"))


def test_unknown_options_are_refused() -> None:
    command = [sys.executable, "benchmarks/options.py", "--ways", "magic"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 2
    assert "unknown ways: magic" in done.stderr


# --- the routers ------------------------------------------------------------------------------------


def test_the_routers_benchmark_reports_every_set_and_pair(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("label,question\n1,What are the benefits of tea?\n0,What is 2 + 2?\n")
    command = [sys.executable, "benchmarks/router.py", "--train", "--test", str(labels), "--overhead", "3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert set(report["sets"]) == {"labels"}
    assert report["overhead"]["runs"] == 3
    pairs = report["overhead"]["pairs"]
    assert {name.split()[0].split(".")[0] for name in pairs} == {"core", "chain", "chat", "engine"}
    for row in pairs.values():
        assert row["plain_total"] > 0
    assert "overhead of a direct answer" in done.stdout


def test_the_contention_benchmark_counts_steps_beside_busy_processes(model: Path) -> None:
    command = [sys.executable, "benchmarks/contention.py", "--model", str(model), "--ways"]
    command += ["default,spincount", "--rows", "1,2", "--busy", "0,1", "--steps", "4", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    places = {(c["way"], c["rows"], c["busy"]) for c in result["cells"]}
    assert places == {(way, rows, busy) for way in ("default", "spincount") for rows in (1, 2) for busy in (0, 1)}
    assert all(c["steps_per_second"] > 0 for c in result["cells"])


def test_the_drift_benchmark_compares_half_weights_with_float32(model: Path) -> None:
    command = [sys.executable, "benchmarks/drift.py", "--model", str(model), "--rows", "9", "--tokens", "6"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert set(report["settings"]) == {"bfloat16", "float16"}
    for name, table in report["settings"].items():
        assert set(table) == {"float32", "engine, 1 row", "engine, 9 rows", "transformers"}
        for way, row in table.items():
            assert row["perplexity"] == pytest.approx(report["float32"]["perplexity"], rel=0.1)
            if way == "float32":
                continue
            assert 0 <= row["logits_median"] <= row["logits_max"] < 0.3
            assert row["choices"] > 0.8
            if name == "float16" and way != "transformers":
                assert row["logits_max"] < 1e-4


# --- plans of points ----------------------------------------------------------------------------------


def test_the_orchestration_benchmark_runs_plans_in_their_waves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("langchain", reason="the benchmark needs LangChain, with agents")
    orchestration = part("orchestration")
    monkeypatch.setattr(orchestration, "importing", lambda repeats: {"over_langchain_core_ms": 0.0})
    options = "--points 2 --questions 2 --batch-points 2 --skeleton-seconds 0.04 --point-seconds 0.02 --repeats 1"
    options += " --tokens 80 --plan-points 4 --plan-words 8,16 --rate 2000"
    monkeypatch.setattr(sys, "argv", ["orchestration.py", *options.split()])
    orchestration.main()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(report) == ["benchmark", "cells", "us_per_token", "import", "waves", "plan_share", "agents"]
    assert {(row["waves"], row["eager"], row["mode"]) for row in report["waves"]} == {
        (count, eager, mode) for count in (1, 2, 3) for eager in (False, True) for mode in ("sync", "async")
    }
    for row in report["waves"]:
        assert (row["points"], row["waves_run"], row["started_early"]) == (8, row["waves"], 0)
    words = {row["plan"]: row["plan_words"] for row in report["plan_share"]}
    assert words == {"titles": 4 * 4, "scoped": 4 * 16, "graph": 4 * 16 + 3}
    assert len(report["plan_share"]) == 3 * 2 * 2
    assert all(0 < row["share"] < 1 for row in report["plan_share"])
    assert [(row["points"], row["mode"], row["ideal"]) for row in report["agents"]] == [
        (2, "sync", 0.1),
        (2, "async", 0.1),
    ]
    assert all(row["seconds"] >= row["ideal"] for row in report["agents"])


def test_the_items_benchmark_reports_both_parts(model: Path) -> None:
    pytest.importorskip("langchain_openai", reason="the benchmark's client")
    command = [sys.executable, "benchmarks/items.py", "--model", str(model), "--questions", "1", "--tokens", "3"]
    command += ["--seconds", "0.1", "--repeats", "1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert all(report["over_slowest_item"][way] >= 1 for way in ("sync", "async"))
    assert (report["local"]["items"], report["local"]["tokens"]) == (8, 24)
    assert report["local"]["median_speedup_over"].keys() == {"generate", "single"}


def test_the_ideal_of_a_plan_is_its_longest_path() -> None:
    waves = part("waves")
    points, parents = [3.0, 1.0, 1.0, 2.0], {3: (1, 2), 4: (2,)}
    assert waves.ideal({}, points, 4.0) == 4 + 3
    assert waves.ideal(parents, points, 4.0) == 4 + 3 + 1
    # With `eager` the first point waits for the second line, which shows that the plan is no chain.
    assert waves.ideal(parents, points, 4.0, eager=True) == 2 + 3 + 1
    assert waves.ideal({4: (2,)}, [1.0] * 4, 8.0, eager=True) == 8 + 1
    for count, shape in waves.SHAPES.items():
        depth: dict[int, int] = {}
        for index in range(1, waves.POINTS + 1):
            depth[index] = 1 + max((depth[parent] for parent in shape.get(index, ())), default=0)
        assert max(depth.values()) == count
        assert len(waves.plan_lines("graph", waves.POINTS, shape)) == waves.POINTS
