"""Rules of the packages: allowed imports, modules that an import loads, and public names."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("skeleton_of_thought", "langchain_sot", "llama_index_sot")

LAYERS = [
    {"errors", "pickling", "small_files", "timeline", "_drawing", "_moved"}
    | {"types.answer", "types.calls", "types.facts", "types.items"},
    {"settings"},
    {"types"},
    {"events"},
    {"adapters", "adapters.finish_reasons", "adapters.hints", "adapters.replies"},
    {
        "parsing.marks",
        "parsing.rare_marks",
        "parsing.markup",
        "parsing.data",
        "parsing.signs",
        "parsing.mark",
        "parsing.numerals",
        "parsing.outline",
        "parsing.plan_lines",
        "parsing.plan_reader",
        "parsing.plan_words",
        "parsing.parser",
        "parsing.reasoning",
        "parsing.reasoning_marks",
        "parsing.special_tokens",
        "parsing",
        "planning",
        "context",
        "blocks",
        "text.words",
        "text.loops",
        "text.overlap",
    },
    {"examples", "templates", "default_prompts", "default_plans", "prompt_files", "plan_prompts", "prompts"}
    | {"default_items", "fan_out"},
    {"text", "text.assembly", "text.echoes"},
    {"routers", "routers.base", "routers.instructions", "routers.measures", "routers.question"}
    | {"text.length", "text.word_limits"},
    {
        "routers.comparisons",
        "routers.items",
        "routers.item_lists",
        "routers.item_sense",
        "routers.item_targets",
        "routers.item_words",
    }
    | {"routers.cost_items"},
    {"routers.embedded"},
    {"routers.tasks"},
    {"routers.gate", "routers.cost", "routers.prompt", "routers.item_prompts"},
    {"routers.auto", "routers.training", "gate"},
    {"ledger", "rate_limits"},
    {"budget"},
    {"board"},
    {"plan_memory"},
    {"draft", "merging", "restarts", "roles", "sources", "waves", "rewriting", "failing"},
    {"flow"},
    {"together"},
    {"tasks"},
    {"drive"},
]
"""The core, lowest first: a module imports from its own layer and those below only."""

TOP = {
    *("__init__", "__main__", "cli", "_cli", "local", "serve", "evaluation", "ray"),
    *("routers.classifier", "adapters.adoption", "adapters.as_model", "adapters.engines"),
    *("adapters.points_tool", "adapters.reply_format", "adapters.tool_calls", "adapters.tool_use"),
}
"""Modules on top of the core; listed so that each new module gets a place."""

WITH_TORCH = ["skeleton_of_thought/local/", "skeleton_of_thought/routers/classifier.py"]
"""Modules that may import torch and transformers."""

MOST_FLOORS = 12
"""The longest chain of imports within `langchain_sot` that a reader may have to follow."""


MOST_LINES = 450
"""Lines that a file of the three packages may have."""

MOST_MODULES = 22
"""Modules at the top of `langchain_sot`."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def place(path: Path) -> str:
    """The name of a module of the core: `flow`, `routers.gate`; of a package beside the core its own."""
    parts = path.relative_to(ROOT / "skeleton_of_thought").with_suffix("").parts
    if parts[0] in TOP:
        return parts[0]
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def roots(names: set[str]) -> set[str]:
    return {n.split(".")[0] for n in names}


def test_every_module_of_the_core_has_a_place():
    assert {place(path) for path in modules("skeleton_of_thought")} == set.union(*LAYERS) | TOP


@pytest.mark.parametrize("height", range(len(LAYERS)))
def test_the_core_imports_downwards_only(height):
    below = set.union(*LAYERS[: height + 1])
    known = {f"skeleton_of_thought.{name}" for name in set.union(*LAYERS) | TOP}
    for path in modules("skeleton_of_thought"):
        if place(path) in LAYERS[height]:
            assert imports(path) & known <= {f"skeleton_of_thought.{name}" for name in below}, path


def test_the_core_needs_the_standard_library_alone():
    for path in modules("skeleton_of_thought"):
        if place(path) in set.union(*LAYERS) | {"__init__"}:
            assert roots(imports(path)) <= set(sys.stdlib_module_names) | {"skeleton_of_thought"}, path


def test_only_local_imports_torch_and_no_framework():
    for package in PACKAGES:
        for path in modules(package):
            names = roots(imports(path))
            if not any(str(path.relative_to(ROOT)).startswith(each) for each in WITH_TORCH):
                assert not names & {"torch", "transformers"}, path
            if package == "skeleton_of_thought" and path.name != "langchain_backend.py":
                assert not names & {"langchain_core", "langchain", "llama_index"}, path


def test_adapters_import_neither_each_other_nor_langchain_community():
    for package, other in (("langchain_sot", "llama_index"), ("llama_index_sot", "langchain")):
        for path in modules(package):
            names = roots(imports(path))
            assert not {n for n in names if n.startswith(other)}, path
            assert not names & {"langchain_community", "langchain_classic"}, path


def at_run_time(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes, those in functions included, but for the imports that only type checkers see."""
    for node in nodes:
        yield node
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        yield from at_run_time(node.orelse if for_types else ast.iter_child_nodes(node))


def import_graph(package: str) -> dict[str, set[str]]:
    """The modules of the package that each of its modules imports, in its functions, too."""
    paths = {dotted(path): path for path in modules(package)}
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        wanted: set[str] = set()
        for node in at_run_time(ast.parse(path.read_text(encoding="utf-8")).body):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= full & paths.keys() or {node.module or ""}
        graph[name] = wanted & paths.keys() - {name}
    return graph


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_through_others(package):
    circles = list(import_circles(import_graph(package)))
    assert not circles, circles


def import_circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    done: set[str] = set()

    def visit(name: str, above: list[str]) -> Iterator[list[str]]:
        if name in above:
            yield [*above[above.index(name) :], name]
        elif name not in done:
            for other in sorted(graph[name]):
                yield from visit(other, [*above, name])
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, [])


def test_the_search_finds_import_circles():
    assert list(import_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == [["a", "b", "c", "a"]]
    assert list(import_circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})) == []


def test_the_langchain_package_has_short_import_chains():
    graph = import_graph("langchain_sot")

    def chain(name: str) -> list[str]:
        return [name, *max((chain(other) for other in graph[name]), key=len, default=[])]

    longest = max((chain(name) for name in graph), key=len)
    assert len(longest) <= MOST_FLOORS, longest


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_no_heavy_module_and_prints_nothing(package):
    heavy = ["torch", "transformers", "langchain_community", "numpy", "rich", "openai"]
    heavy += {"langchain_sot": ["llama_index", "langchain", "langgraph"], "llama_index_sot": ["langchain_core"]}.get(
        package, ["llama_index", "langchain_core", "pydantic"]
    )
    # Modules that langchain-core loads do not count: numpy, and in older versions transformers.
    first = "langchain_core.language_models.chat_models" if package == "langchain_sot" else "sys"
    code = (
        f"import sys, {first}; before = set(sys.modules); import {package}; "
        f"print([m for m in {heavy!r} if m in sys.modules and m not in before])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_importing_the_chain_loads_no_slow_module():
    # `benchmarks/orchestration.py` measures the import's time; these modules would take most of it.
    slow = ["tenacity", "langchain_core.runnables.retry", "langchain_core.runnables.configurable"]
    slow += ["langchain_core.language_models.llms", "langchain_core.runnables.graph", "langchain_core.tools"]
    slow += ["langchain_sot.chat_model", "langchain_sot.local.chat_transformers", "langchain_sot.calls"]
    slow += [
        "langchain_sot.templates",
        "langchain_sot.results",
        "skeleton_of_thought.flow",
        "skeleton_of_thought.drive",
    ]
    code = (
        "import sys, langchain_core.language_models.chat_models, langchain_core.prompts.chat; "
        "before = set(sys.modules); from langchain_sot import SkeletonOfThoughtChain; "
        f"print([m for m in {slow!r} if m in sys.modules and m not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_pinned():
    import langchain_sot
    import llama_index_sot
    import skeleton_of_thought

    assert skeleton_of_thought.__all__ == [
        "Answer",
        "AutoRouter",
        "ClassifierRouter",
        "Conversation",
        "CostGuard",
        "EmbeddedRouter",
        "Expansion",
        "Gate",
        "Pace",
        "Point",
        "PromptRouter",
        "PromptSet",
        "RouteDecision",
        "Router",
        "Skeleton",
        "SotError",
        "Timeline",
        "Usage",
        "all_of",
        "any_of",
        "first_sure",
        "parse_skeleton",
        "with_threshold",
    ]
    assert langchain_sot.__all__ == [
        "ChatTransformers",
        "PromptRouter",
        "SkeletonOfThoughtChain",
        "SkeletonOfThoughtChatModel",
        "SkeletonOfThoughtRouter",
        "SkeletonOutputParser",
        "load_chain",
    ]
    assert llama_index_sot.__all__ == [
        "PromptRouter",
        "SkeletonOfThoughtLLM",
        "SkeletonOfThoughtQueryEngine",
        "SkeletonOfThoughtSelector",
        "SkeletonOfThoughtSynthesizer",
        "SkeletonOfThoughtWorkflow",
        "TransformersLLM",
        "answer_in_points_tool",
    ]
    for module in (skeleton_of_thought, langchain_sot, llama_index_sot):
        for name in module.__all__:
            assert getattr(module, name).__doc__, name


def test_no_file_is_long():
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for package in PACKAGES for path in modules(package)}
    long = {path.relative_to(ROOT).as_posix(): length for path, length in lengths.items() if length > MOST_LINES}
    assert not long, f"split by noun these files of more than {MOST_LINES} lines: {long}"


def test_the_top_of_the_langchain_package_is_narrow():
    top = sorted(path.name for path in (ROOT / "langchain_sot").glob("*.py"))
    assert len(top) <= MOST_MODULES, f"{len(top)} modules, more than {MOST_MODULES}; shelve some of {top}"


def test_every_package_is_typed_and_there_is_no_llama_index_folder():
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)
    assert not (ROOT / "llama_index").exists()
    assert importlib.util.find_spec("llama_index_sot") is not None
