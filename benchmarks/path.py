"""The path of one question: how many modules, functions and calls of this project an answer goes through.

A profile function counts the calls of all functions that are defined in `skeleton_of_thought`, `langchain_sot` or
`llama_index_sot`, in every thread, from the question until the answer is complete. A generator counts each time that it
is resumed. The models are scripted: a skeleton of seven points, and a sentence a point, in small pieces. Another
question is asked first, so that imports do not count.

    langchain     `SkeletonOfThoughtChain.stream`
    llama_index   `SkeletonOfThoughtQueryEngine.query`
    command       `sot ask --plain`, with a server on this machine
    engine        `LocalEngine.stream`, eight tokens of a tiny Llama
    pipeline      `SkeletonOfThoughtChain.stream` on a stock `HuggingFacePipeline`, for the adoptions of its model

Printed for each: modules, functions, calls, and how often a model was resolved and adopted. `--modules` lists the
modules in the order in which the question reaches them, `--functions` lists the functions by their calls.

    python benchmarks/path.py
    python benchmarks/path.py langchain --functions

The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

# This folder has a file with the name of a package that is imported here.
sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]

PACKAGES = ("skeleton_of_thought", "langchain_sot", "llama_index_sot")
QUESTIONS = ("What makes a good day?", "What makes a good week?")
"""The one that is asked first, and the one that is counted."""
TITLES = ("Plan the days", "Sleep enough", "Walk", "Cook at home", "Call a friend", "Read a book", "Rest on Sunday")
SKELETON = "".join(f"{i}. {title}\n" for i, title in enumerate(TITLES, 1))
SENTENCE = "It costs little, it is easy to keep up, and it shows within days."
_TOKENS = 8
_PIECE = 12

RESOLVERS = ("settled", "find_backend", "resolve", "resolve_model", "resolve_llm")
"""Functions that find out how a model is called, under their names of now and before."""


Ask = Callable[[str], object]


class CallPath:
    """Counts calls while `counting` is set.

    Attributes:
        calls: The number of calls of each function.
        order: The modules in the order in which they were reached.
        counting: Whether calls count.
    """

    def __init__(self) -> None:
        self.calls: Counter[CodeType] = Counter()
        self.order: list[str] = []
        self.counting = False
        self._modules: dict[CodeType, str | None] = {}
        self._lock = threading.Lock()

    def install(self) -> None:
        """Profiles this thread, and all threads that start from now on: those of an engine start with it."""
        threading.setprofile(self._count)
        sys.setprofile(self._count)

    def module(self, code: CodeType) -> str | None:
        """The module of a function; None for what is not ours."""
        if code not in self._modules:
            parts = Path(code.co_filename).with_suffix("").parts
            start = next((i for i, part in enumerate(parts) if part in PACKAGES), None)
            self._modules[code] = None if start is None else ".".join(parts[start:]).removesuffix(".__init__")
        return self._modules[code]

    def _count(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not self.counting:
            return
        with self._lock:
            module = self.module(frame.f_code)
            if module is not None:
                self.calls[frame.f_code] += 1
                if module not in self.order:
                    self.order.append(module)

    def figures(self) -> dict[str, int]:
        """Modules, functions, calls, resolutions and adoptions."""
        names = Counter[str]()
        for code, calls in self.calls.items():
            names[code.co_name] += calls
        return {
            "modules": len(self.order),
            "functions": len(self.calls),
            "calls": self.calls.total(),
            "resolved": sum(names[name] for name in RESOLVERS),
            "adopted": sum(n for code, n in self.calls.items() if _adopts(code)),
        }


def _adopts(code: CodeType) -> bool:
    return "adopt" in Path(code.co_filename).stem and code.co_name.startswith("adopt")


def pieces(text: str) -> Iterator[str]:
    """The text as a model might stream it."""
    return (text[i : i + _PIECE] for i in range(0, len(text), _PIECE))


def reply_to(prompt: str) -> str:
    """The skeleton, or a point's sentence."""
    return SENTENCE if "under the heading" in prompt or ", explain: " in prompt else SKELETON


# --- the ways to ask ------------------------------------------------------------------------------


def langchain() -> Ask:
    """A chain over a scripted chat model, streamed."""
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

    from langchain_sot import SkeletonOfThoughtChain

    class Scripted(BaseChatModel):
        @property
        def _llm_type(self) -> str:
            return "scripted"

        def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
            for piece in pieces(reply_to(str(messages[-1].text))):
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
            yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata={"finish_reason": "stop"}))

        def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
            return ChatResult(generations=[ChatGeneration(message=AIMessage(reply_to(str(messages[-1].text))))])

    chain = SkeletonOfThoughtChain(Scripted())
    return lambda question: list(chain.stream(question))


def llama_index() -> Ask:
    """A query engine over a scripted LLM, without a retriever."""
    from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
    from llama_index.core.llms.callbacks import llm_completion_callback

    from llama_index_sot import SkeletonOfThoughtQueryEngine

    class Scripted(CustomLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(model_name="scripted")

        @llm_completion_callback()
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            return CompletionResponse(text=reply_to(prompt))

        @llm_completion_callback()
        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
            def responses() -> CompletionResponseGen:
                text = ""
                for piece in pieces(reply_to(prompt)):
                    text += piece
                    yield CompletionResponse(text=text, delta=piece)

            return responses()

    engine = SkeletonOfThoughtQueryEngine.from_defaults(Scripted())
    return engine.query


class _Server(BaseHTTPRequestHandler):
    """Chat completions of the script, streamed."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._send(b'{"object": "list", "data": [{"id": "scripted", "object": "model"}]}', "application/json")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = reply_to(str(asked["messages"][-1]["content"]))
        chunks = [_chunk({"content": piece}, None) for piece in pieces(text)] + [_chunk({}, "stop"), "data: [DONE]\n\n"]
        self._send("".join(chunks).encode(), "text/event-stream")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _chunk(delta: dict[str, str], finish_reason: str | None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "scripted"}
    return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"


def command() -> Ask:
    """The command, in this process."""
    from skeleton_of_thought.cli import main

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    model = f"openai:scripted@http://127.0.0.1:{server.server_address[1]}/v1"

    def ask(question: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if main(["ask", "--plain", "--prefill", "no", "--model", model, question]):
                raise SystemExit("The command failed.")

    return ask


def _tiny() -> tuple[Any, Any]:
    """A random Llama over single bytes, and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = ["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="</s>")
    torch.manual_seed(3)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(names), max_position_embeddings=4096, eos_token_id=0, pad_token_id=0, **shape)
    return LlamaForCausalLM(config).eval(), tokenizer


def engine() -> Ask:
    """The local engine."""
    from skeleton_of_thought.local import LocalEngine

    local = LocalEngine.for_model(*_tiny())
    return lambda question: list(local.stream(question[:_TOKENS], max_new_tokens=_TOKENS, ignore_eos=True))


def pipeline() -> Ask:
    """A chain over LangChain's own class for local models; the points are known, for a random model names none."""
    from langchain_huggingface import HuggingFacePipeline
    from transformers import pipeline as make

    from langchain_sot import SkeletonOfThoughtChain

    model, tokenizer = _tiny()
    llm = HuggingFacePipeline(
        pipeline=make(
            "text-generation", model=model, tokenizer=tokenizer, max_new_tokens=_TOKENS, return_full_text=False
        )
    )
    expansion = SkeletonOfThoughtChain(llm).expansion(list(TITLES))
    return lambda question: list(expansion.stream(question))


WAYS = {"langchain": langchain, "llama_index": llama_index, "command": command, "engine": engine, "pipeline": pipeline}


def counted(way: str) -> CallPath:
    """The path of one question."""
    path = CallPath()
    path.install()
    try:
        ask = WAYS[way]()
        ask(QUESTIONS[0])
        path.counting = True
        ask(QUESTIONS[1])
        path.counting = False
    finally:
        threading.setprofile(None)
        sys.setprofile(None)
    return path


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", choices=[*WAYS, []], help="which of them; all without")
    parser.add_argument(
        "--modules", action="store_true", help="list the modules in the order in which they are reached"
    )
    parser.add_argument("--functions", action="store_true", help="list the functions by their calls")
    args = parser.parse_args()
    if unknown := set(args.ways) - set(WAYS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(WAYS)}")
    results = {}
    print(f"{'':12} {'modules':>8} {'functions':>10} {'calls':>8} {'resolved':>9} {'adopted':>8}")
    for way in args.ways or WAYS:
        path = counted(way)
        results[way] = figures = path.figures()
        widths = (8, 10, 8, 9, 8)
        print(f"{way:12} " + " ".join(f"{n:>{w},}" for n, w in zip(figures.values(), widths, strict=True)))
        if args.modules:
            print(*(f"    {module}" for module in path.order), sep="\n")
        if args.functions:
            for code, calls in path.calls.most_common():
                print(f"    {calls:6,}  {path.module(code)}.{code.co_qualname}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
