"""The servers of the engine's benchmark: llama.cpp's, started here, and any other with OpenAI's protocol.

A llama.cpp server runs in a process of its own, on a free port of 127.0.0.1, with the model's weights in float32. It
ends with the block that started it. If the benchmark is killed, the server's standard input closes, and it ends too.
This command line is that process:

    python benchmarks/servers.py MODEL.gguf --port 8080 --slots 8 --context 4096 --threads 2

Its threads poll while they wait for each other in each step. Beside a busy process, polling takes the processor from
the threads they wait for: with `--poll 0` they sleep instead (`benchmarks/contention.py` measures both).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Completed", "ServerError", "complete", "llama_cpp", "served_model", "write_weights"]

_START_PATIENCE = 180.0
_STOP_PATIENCE = 10.0
_REQUEST_PATIENCE = 3600.0
_HOST = "127.0.0.1"


class ServerError(Exception):
    """A server did not start, or did not complete a request; the text is one line."""


def write_weights(source: Path, target: Path, dtype: str = "float32") -> None:
    """Writes a copy of a GGUF file with all weights unpacked to float32, or all matrices to float16.

    Everything else stays the same.

    Args:
        source: A GGUF file in any format that the `gguf` package can unpack.
        target: The path of the copy.
        dtype: `"float32"` or `"float16"`.
    """
    import gguf

    types = {"float32": gguf.LlamaFileType.ALL_F32, "float16": gguf.LlamaFileType.MOSTLY_F16}

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        # The writer adds the fields that describe the file itself.
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        if name == "general.file_type":
            writer.add_file_type(types[dtype])
        elif field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(name, field.contents(), gguf.GGUFValueType.ARRAY, sub_type=field.types[-1])
        else:
            writer.add_key_value(name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, values.astype(dtype if values.ndim > 1 else "float32", copy=False))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextlib.contextmanager
def llama_cpp(
    model: Path, *, slots: int, context: int, threads: int, log: Path, watched: bool = False, poll: int | None = None
) -> Iterator[str]:
    """Runs a llama.cpp server for the length of a block; yields its address, such as `http://127.0.0.1:40123`.

    Args:
        model: A GGUF file.
        slots: Requests that it decodes at once.
        context: Tokens per request.
        threads: CPU threads.
        log: The file for its output.
        watched: Whether it serves `/slots` and `/metrics`.
        poll: The polling level of its threads, from 0 to 100; None for the server's default.

    Raises:
        ServerError: The server ended, or was not ready in time.
    """
    port = _free_port()
    command = [sys.executable, __file__, str(model), "--port", str(port), "--slots", str(slots)]
    command += ["--context", str(context), "--threads", str(threads), *(["--watched"] if watched else [])]
    command += [] if poll is None else ["--poll", str(poll)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(process, f"http://{_HOST}:{port}", log)
        yield f"http://{_HOST}:{port}"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def served_model(url: str) -> str:
    """The name of the first model of a server.

    Args:
        url: The server's address, with or without `/v1`.

    Raises:
        ServerError: The server cannot be reached, or lists no model.
    """
    try:
        with urllib.request.urlopen(_endpoint(url, "models"), timeout=_STOP_PATIENCE) as response:
            return str(json.load(response)["data"][0]["id"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
        raise ServerError(f"The server at {url} lists no model: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Completed:
    """A server's completion of one prompt.

    Attributes:
        tokens: Generated tokens, as the server reports them.
        times: The arrival of each piece, by `time.perf_counter()`; a piece may hold more than one token.
    """

    tokens: int
    times: tuple[float, ...]


def complete(url: str, model: str, prompts: Sequence[Sequence[int]], tokens: int) -> list[Completed]:
    """Completes all prompts at once, greedily, with a fixed number of tokens.

    Args:
        url: The server's address, with or without `/v1`.
        model: The server's name for the model.
        prompts: Prompts as tokens, so that every server decodes the same.
        tokens: New tokens for each prompt, ignoring any end of text.

    Raises:
        ServerError: The server cannot be reached, refuses, or breaks off.
    """
    settings: dict[str, Any] = {"model": model, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    settings |= {"stream": True, "stream_options": {"include_usage": True}}
    bodies = [json.dumps({**settings, "prompt": list(prompt)}).encode() for prompt in prompts]
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: _complete_one(url, body), bodies))


def _complete_one(url: str, body: bytes) -> Completed:
    request = urllib.request.Request(_endpoint(url, "completions"), body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_REQUEST_PATIENCE) as response:
            return _read(response)
    except urllib.error.HTTPError as error:
        body_text = " ".join(error.read().decode(errors="replace").split())
        raise ServerError(f"The server at {url} answered {error.code}: {body_text:.200}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"The server at {url} broke off: {type(error).__name__}: {error}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ServerError(f"The server at {url} sent no completion: {type(error).__name__}: {error}") from error


def _read(lines: Iterable[bytes]) -> Completed:
    """Reads an event stream to its end."""
    tokens, times = 0, []
    for line in lines:
        data = line.removeprefix(b"data: ").strip()
        if not line.startswith(b"data: ") or data == b"[DONE]":
            continue
        chunk = json.loads(data)
        if chunk.get("choices") and chunk["choices"][0]["text"]:
            times.append(time.perf_counter())
        if chunk.get("usage"):
            tokens = int(chunk["usage"]["completion_tokens"])
    return Completed(tokens, tuple(times))


def _endpoint(url: str, name: str) -> str:
    return f"{url.rstrip('/').removesuffix('/v1')}/v1/{name}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + _START_PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
            raise ServerError(f"The llama.cpp server ended with {process.returncode} and wrote: {last:.200}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=_STOP_PATIENCE) as response:
                if response.status == http.client.OK:
                    return
        except (OSError, http.client.HTTPException):
            pass  # not listening yet, or status 503 while it loads the model
        time.sleep(0.1)
    raise ServerError(f"The llama.cpp server was not ready after {_START_PATIENCE:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=8, help="requests decoded at once (default 8)")
    parser.add_argument("--context", type=int, default=4096, help="tokens per request (default 4096)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument(
        "--poll", type=int, help="polling level of waiting threads, 0 to 100 (default: llama.cpp's own, 50)"
    )
    parser.add_argument("--watched", action="store_true", help="serve /slots and /metrics")
    args = parser.parse_args()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.port = args.port
    params.n_parallel = args.slots
    params.n_ctx = args.slots * args.context  # the server splits it over its slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    if args.poll is not None:
        params.cpuparams.poll = params.cpuparams_batch.poll = args.poll
    params.model_alias = {"model"}
    params.cache_ram_mib = 0  # no prompt comes twice, so copies of idle slots would only cost time
    params.endpoint_slots = params.endpoint_metrics = args.watched
    server = xllamacpp.Server(params)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main()
