"""The examples of README, the docs and docstrings run, and so do benchmarks."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import json
import pkgutil
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "1. ",
    "docs/local.md": "lean EngineStats(",
    "docs/agents.md": "1. ",
    "docs/llama_index.md": "1 ",
    "docs/integration.md": "False 8192\n",
}
"""Pages whose Python blocks run on the demo model, and a text that each prints."""


def modules() -> list[str]:
    names = []
    for package in ("skeleton_of_thought", "langchain_sot", "llama_index_sot"):
        root = importlib.import_module(package)
        names += [
            package,
            *(m.name for m in pkgutil.walk_packages(root.__path__, package + ".") if "__main__" not in m.name),
        ]
    return names


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")  # of LlamaIndex's agents
@pytest.mark.model
@pytest.mark.filterwarnings("ignore:.*v3.*:Warning")  # these events are in beta
@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_of_a_page_runs(page, capsys):
    run_blocks(page, max_tokens=20)  # of the demo model's texts none is looked at
    assert PAGES[page] in capsys.readouterr().out


@pytest.mark.parametrize("page", ["docs/langchain.md", "docs/routers.md", "docs/planning.md", "docs/items.md"])
def test_every_python_block_prints_the_text_below_it(page, capsys):
    run_blocks(page)
    printed = re.findall(r"^```text\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    assert capsys.readouterr().out == "".join(printed)


def test_the_trace_of_an_agent_is_what_its_example_prints(capsys):
    pytest.importorskip("langchain", reason="the extra [agents] is not installed")
    text = (
        (ROOT / "docs/agents.md").read_text(encoding="utf-8").partition("## The final answer of an agent with tools")[2]
    )
    (code,), (printed,) = [re.findall(rf"^```{kind}\n(.*?)^```", text, re.M | re.S) for kind in ("python", "text")]
    exec(compile(code, "docs/agents.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == printed


@pytest.fixture
def served() -> Iterator[str]:
    """The address of a server with the model `demo` by script, and with the default router."""
    uvicorn = pytest.importorskip("uvicorn", reason="the server needs its extra")
    from scripted_upstream import ScriptedUpstream

    from skeleton_of_thought.serve.app import create_app
    from skeleton_of_thought.serve.settings import ModelSettings, ServeSettings

    app = create_app(ServeSettings((ModelSettings("demo"),)), {"demo": ScriptedUpstream()})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


def test_the_python_clients_of_the_server_get_answers_by_points(served, capsys):
    pytest.importorskip("langchain_openai")
    names: dict[str, object] = {"__name__": "page"}
    blocks = blocks_of("docs/serve.md", "python")
    assert len(blocks) == 4
    for block in blocks:
        if "openai_like" in block and not _has("llama_index.llms.openai_like"):
            continue  # an integration of its own, which tests do not need otherwise
        exec(compile(block.replace("127.0.0.1:8000", served), "docs/serve.md", "exec"), names)
        assert ("## Diet" if "headings" in block else "2. Sleep: All about Sleep.") in capsys.readouterr().out


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def test_the_first_call_of_the_server_s_page_gets_an_answer_by_points(served):
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("there is no curl")
    (command,) = blocks_of("docs/serve.md", "bash")
    command = command.replace("127.0.0.1:8000", served).replace("curl ", "curl --silent ")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"].startswith("1. Diet: All about Diet.")


def test_the_servers_example_of_a_file_has_every_key_with_its_default(monkeypatch, tmp_path):
    from skeleton_of_thought._cli.options import served_options
    from skeleton_of_thought.serve.config_file import read_config
    from skeleton_of_thought.serve.settings import ModelSettings, ServeSettings

    monkeypatch.setenv("SOT_API_KEY", "one,two")
    monkeypatch.setenv("MY_KEY", "three")
    (text,) = blocks_of("docs/serve.md", "toml")
    file = tmp_path / "server.toml"
    file.write_text(text, encoding="utf-8")
    settings = read_config(file, key_env="SOT_API_KEY")
    assert settings.keys == ("one", "two")
    demo, fast = settings.models
    assert (demo.name, demo.spec) == ("demo", None)
    assert fast.key == "three"
    plain = ServeSettings(settings.models, keys=settings.keys)
    assert settings == plain, "the example shows the defaults"
    assert demo == ModelSettings("demo")
    written = set(re.findall(r"^(?:# )?([a-z-]+) =", text, re.M))
    known = {name.replace("_", "-") for options in served_options() for name in options}
    assert written == known | {"origins", "name", "spec", "key-env"}


def blocks_of(page: str, kind: str) -> list[str]:
    """The blocks of code of a page, of one language."""
    blocks: list[str] = re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    return blocks


def run_blocks(page: str, max_tokens: int | None = None) -> None:
    blocks = blocks_of(page, "python")
    if max_tokens is not None:
        blocks = [re.sub(r"max_tokens=\d+", f"max_tokens={max_tokens}", block) for block in blocks]
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        if "llama_agents.server" not in block:  # tests/llama_index/servers runs it
            exec(compile(block, page, "exec"), names)


def last_json(*command: str) -> dict:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.model
def test_the_decoding_benchmark_measures_every_column():
    result = last_json(
        "benchmarks/decoding.py",
        "--questions",
        "1",
        "--max-points",
        "3",
        "--skeleton-tokens",
        "4",
        "--point-tokens",
        "4",
    )
    assert set(result["median_seconds"]) == {"normal", "single", "sequential", "threads", "padded", "engine"}
    assert result["questions"] == 1
    assert all(seconds > 0 for seconds in result["median_seconds"].values())


@pytest.mark.model
def test_the_prompt_benchmark_counts_tokens():
    assert last_json("benchmarks/prompts.py", "--questions", "1")["questions"] == 1


@pytest.mark.model
def test_the_retrieval_benchmark_finds_only_the_engines_form_without_a_gap():
    result = last_json("benchmarks/retrieval.py")
    assert result["points"] == 96
    worst = {
        form: min(places[where]["hit@2"] for where in ("handbook", "articles"))
        for form, places in result["forms"].items()
    }
    assert max(worst, key=worst.get) == "the mean of {title} and {title} ({query_str})"
    assert worst["{title}"] < 0.5 < 0.7 < worst["the mean of {title} and {title} ({query_str})"]
