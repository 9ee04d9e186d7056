"""The package as an index and a clone show it: links work, versions agree, extras exist."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
HOME = PROJECT["project"]["urls"]["Homepage"]
RAW = HOME.replace("//github.com/", "//raw.githubusercontent.com/") + "/main/"
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def links(text: str) -> list[str]:
    """The targets of links and pictures outside of code."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`(?!\]\()", "", text, flags=re.M | re.S)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_titles_that_exist(page):
    for target in links((ROOT / page).read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page} links to {target}"


def test_the_readme_on_a_package_index_has_no_relative_link():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert any(not re.match(r"\w+:", target) for target in links(text))
    for rule in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    for target in links(text):
        assert re.match(r"https?://|#", target), target
    pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text)
    assert pictures
    assert all(target.startswith(RAW) for target in pictures)
    assert f"]({HOME}/blob/main/docs/local.md" in text


def test_all_urls_name_one_repository():
    assert set(PROJECT["project"]["urls"]) == {"Homepage", "Documentation", "Changelog", "Issues", "Source"}
    assert all(url.startswith(HOME) for url in PROJECT["project"]["urls"].values())
    assert f"git clone {HOME} " in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_newest_entry_of_the_changelog_is_this_version_with_its_date():
    version = PROJECT["project"]["version"]
    first = re.search(r"^## (?!Unreleased$)(.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert first is not None
    assert re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", first[1])


def test_the_sdist_has_every_tracked_file():
    included = {name.removeprefix("/") for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    assert all((ROOT / name).exists() for name in included)
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: every file came with the sdist")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # hatchling adds these two itself.
    assert {name.split("/")[0] for name in listed.split("\0") if name} - {".gitignore", "pyproject.toml"} <= included


def test_the_all_extra_includes_every_extra_but_ray():
    (everything,) = EXTRAS["all"]
    named = re.fullmatch(r"skeleton-of-thought\[(.*)\]", everything)
    assert named is not None
    assert set(named[1].split(",")) == set(EXTRAS) - {"all", "ray"}


def test_every_extra_named_in_an_error_or_a_page_exists():
    named = set()
    for folder in ("skeleton_of_thought", "langchain_sot", "llama_index_sot"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("MissingExtra", "install_line"):
                    named |= {a.value for a in node.args[-1:] if isinstance(a, ast.Constant)}
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for extras in re.findall(r'"(?:\.|skeleton-of-thought)\[([\w,-]+)\]"', text):
            named |= set(extras.split(","))
    assert {"local", "langchain", "llama-index", "openai", "serve"} <= named
    assert named <= set(EXTRAS)


def test_readme_names_the_packages_that_the_all_extra_lacks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    installed = {re.match(r"[\w-]+", one)[0] for ones in EXTRAS.values() for one in ones}
    providers = re.findall(r"^\$ sot .*--model langchain:(\w+):(.*)$", text, re.M)
    assert providers
    for provider, rest in providers:
        assert f"langchain-{provider}" in installed or f"pip install langchain-{provider}" in rest


def test_constraints_pin_every_requirement():
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    wanted = [one for group in (EXTRAS, PROJECT["dependency-groups"]) for ones in group.values() for one in ones]
    names = {re.match(r"[\w-]+", one)[0].lower() for one in wanted if isinstance(one, str)}
    assert names - {"skeleton-of-thought"} <= set(pinned)


FLAWED = {
    "langchain-core": ("1.0.0", "1.2.4", "1.2.21", "1.3.2"),
    "langchain-openai": ("1.0.0", "1.1.13"),
    "torch": ("2.4.0", "2.9.1"),
    "transformers": ("5.0.0", "5.2.0", "5.4.0", "5.9.0"),
    "jinja2": ("3.1.0", "3.1.5"),
}
"""Releases with a known vulnerability; pyproject.toml names the advisories."""


@pytest.mark.parametrize("name", FLAWED)
def test_no_extra_admits_a_release_with_a_known_vulnerability(name):
    ranges = [wanted.specifier for ones in EXTRAS.values() for wanted in map(Requirement, ones) if wanted.name == name]
    assert ranges
    assert [(str(one), version) for one in ranges for version in FLAWED[name] if version in one] == []
