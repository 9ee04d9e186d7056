"""Errors about missing packages: the name of the package, and the install command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skeleton_of_thought.errors import MissingExtra, install_line

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Stands in for the installed package; `installed(note)` writes pip's record of the package's source."""
    info = tmp_path / "site" / "skeleton_of_thought-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: skeleton-of-thought\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(info.parent)

    def write(note: dict | None) -> None:
        if note is not None:
            (info / "direct_url.json").write_text(json.dumps(note))

    return write


def test_the_hint_for_an_index_install_gives_the_name(installed):
    installed(None)
    assert install_line("local") == 'pip install "skeleton-of-thought[local]"'
    assert str(MissingExtra("It needs torch", "local")) == f"It needs torch: {install_line('local')}"


def test_the_hint_for_a_wheel_install_names_the_wheel(installed, tmp_path):
    wheel = tmp_path / "with a space" / "skeleton_of_thought-9.9-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    installed({"url": wheel.as_uri(), "archive_info": {"hashes": {}}})
    assert install_line("local") == f'pip install "skeleton-of-thought[local] @ {wheel.as_uri()}"'
    assert "%20" in install_line("local")


@pytest.mark.parametrize(("editable", "option"), [(True, "-e "), (False, "")])
def test_the_hint_for_a_directory_install_names_the_directory(installed, tmp_path, editable, option):
    folder = tmp_path / "my clone"
    folder.mkdir()
    installed({"url": folder.as_uri(), "dir_info": {"editable": editable}})
    assert install_line("demo") == f'pip install {option}"{folder}[demo]"'


@pytest.mark.parametrize(
    ("note", "end"),
    [
        ({}, f"git+https://example.org/sot.git@{COMMIT}"),
        ({"requested_revision": "main"}, "git+https://example.org/sot.git@main"),
    ],
)
def test_the_hint_for_a_repository_install_names_the_repository(installed, note, end):
    vcs = {"vcs": "git", "commit_id": COMMIT, **note}
    installed({"url": "https://example.org/sot.git", "vcs_info": vcs})
    assert install_line("openai") == f'pip install "skeleton-of-thought[openai] @ {end}"'
    installed({"url": "https://example.org/sot.git", "vcs_info": vcs, "subdirectory": "python"})
    assert install_line("openai").endswith(f'{end}#subdirectory=python"')


def test_the_hint_for_a_url_install_names_the_url(installed):
    installed({"url": "https://example.org/sot.whl", "archive_info": {}})
    assert install_line("local") == 'pip install "skeleton-of-thought[local] @ https://example.org/sot.whl"'


@pytest.mark.parametrize("kind", [{"archive_info": {}}, {"dir_info": {"editable": True}}])
def test_the_hint_does_not_name_a_missing_source(installed, tmp_path, kind):
    installed({"url": (tmp_path / "gone.whl").as_uri(), **kind})
    assert install_line("local") == 'pip install "skeleton-of-thought[local]"'


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{",
        "[]",
        "null",
        "\udcff",
        '{"url": null}',
        '{"url": 3, "dir_info": []}',
        '{"url": "file://[/x", "dir_info": {}}',
        '{"url": "file:///%00", "dir_info": {}}',
        '{"url": "https://x", "vcs_info": "git"}',
        '{"url": "https://x", "vcs_info": {"vcs": "git"}}',
        '{"url": "https://x", "vcs_info": {"commit_id": "1"}}',
    ],
)
def test_an_unreadable_install_record_hides_no_error(installed, tmp_path, note):
    installed({})
    (tmp_path / "site" / "skeleton_of_thought-9.9.dist-info" / "direct_url.json").write_bytes(
        note.encode(errors="surrogateescape")
    )
    assert str(MissingExtra("It needs torch", "local")) == 'It needs torch: pip install "skeleton-of-thought[local]"'


def line_from(root: Path, cwd: Path) -> str:
    """The message of the package in this folder, without site-packages, where it may be installed."""
    code = f"import sys; sys.path.insert(0, {str(root)!r})\nfrom skeleton_of_thought.errors import install_line\n"
    code += "print(install_line('local'))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, cwd=cwd)
    return done.stdout.strip()


def test_the_hint_for_a_clone_on_the_path_names_the_clone(tmp_path):
    assert line_from(ROOT, tmp_path) == f'pip install -e "{ROOT}[local]"'


@pytest.mark.parametrize(
    "project", [None, '[project]\nname = "other"\n', "[tool.ruff]\n", "project = 3\n", "[project\n", "\udcff"]
)
def test_a_project_that_has_a_copy_of_the_package_is_not_named(tmp_path, project):
    shutil.copytree(ROOT / "skeleton_of_thought", tmp_path / "skeleton_of_thought")
    if project is not None:
        (tmp_path / "pyproject.toml").write_bytes(project.encode(errors="surrogateescape"))
    assert line_from(tmp_path, tmp_path) == 'pip install "skeleton-of-thought[local]"'


MAKE_LLM = "from llama_index_sot import TransformersLLM; TransformersLLM()"

PARTS = {
    ("langchain_core", ""): ("import langchain_sot", "langchain_sot needs langchain-core", "langchain"),
    ("llama_index", ""): (
        "from llama_index_sot import TransformersLLM",
        "TransformersLLM needs llama-index-core",
        "llama-index",
    ),
    ("llama_index.core", ""): (
        "from llama_index_sot import SkeletonOfThoughtQueryEngine",
        "SkeletonOfThoughtQueryEngine needs llama-index-core",
        "llama-index",
    ),
    ("langchain", "langchain_core"): (
        "from langchain_sot import SkeletonOfThoughtMiddleware",
        "SkeletonOfThoughtMiddleware needs langchain",
        "agents",
    ),
    ("torch", ""): ("from skeleton_of_thought import ClassifierRouter", "The local engine needs torch", "local"),
    ("transformers", ""): ("import skeleton_of_thought.local", "The local engine needs transformers", "local"),
    ("torch", "llama_index.core"): (MAKE_LLM, "The local engine needs torch", "local"),
    ("torch", "langchain_core"): (
        "import langchain_sot; langchain_sot.ChatTransformers()",
        "The local engine",
        "local",
    ),
}
"""For a missing package (and one that the attempt needs): the attempt, the error, the extra that it names."""

BLOCKERS = {
    "by None": "import sys; sys.modules[{!r}] = None\n",
    "by a finder": """
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if (name + ".").startswith({!r} + "."):
            raise ModuleNotFoundError("hidden: " + name)
sys.meta_path.insert(0, Hidden())
""",
}
"""Two ways in which a test makes a package look as if it were not installed."""


@pytest.mark.parametrize("blocker", BLOCKERS)
@pytest.mark.parametrize("missing", PARTS, ids="-".join)
def test_a_missing_package_is_named_with_its_install_command(missing, blocker):
    tried, words, extra = PARTS[missing]
    absent, needed = missing
    if needed:
        pytest.importorskip(needed)
    code = (
        f"{BLOCKERS[blocker].format(absent)}"
        f"try:\n    {tried}\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"MissingExtra {words}")
    assert done.stdout.rstrip().endswith(install_line(extra).removeprefix("pip install "))


def test_an_import_error_inside_the_framework_is_raised_unchanged(tmp_path):
    broken = tmp_path / "langchain_core"
    broken.mkdir()
    (broken / "__init__.py").write_text("import something_that_langchain_needs")
    code = "try:\n    import langchain_sot\nexcept ImportError as error:\n    print(type(error).__name__, error.name)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "ModuleNotFoundError something_that_langchain_needs"
