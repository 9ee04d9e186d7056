"""`sot completion`: the script, and the completions that bash offers with it."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from skeleton_of_thought.cli import main

COMPLETE = """
source /dev/stdin
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_shtab_sot sot "${COMP_WORDS[-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("shtab")
    done = subprocess.run(
        [sys.executable, "-m", "skeleton_of_thought", "completion", "bash"], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ch"], {"chat"}),
        (["ask", "--max-"], {"--max-points", "--max-tokens", "--max-concurrency", "--max-depth"}),
        (["ask", "--join", ""], {"numbered", "headings", "paragraphs"}),
        (["ask", "--prefill", ""], {"auto", "yes", "no"}),
        (["chat", "--no-ro"], {"--no-router"}),
        (["se"], {"serve"}),
        (["serve", "--max-w"], {"--max-waiting"}),
        (["serve", "--router", ""], {"auto", "always", "never"}),
        (["serve", "--no-p"], {"--no-page"}),
        (["serve", "--config", "FOLDER/ans"], {"FOLDER/answer.txt"}),
        (["serve", "--model", "FOLDER/ans"], {"FOLDER/answer.txt"}),
        (["ev"], {"eval"}),
        (["eval", "--judge-"], {"--judge-prompt", "--judge-temperature"}),
        (["eval", "--pairs", ""], {"base", "all"}),
        (["eval", "FOLDER/ans"], {"FOLDER/answer.txt"}),
        (["eval", "--votes", "FOLDER/ans"], {"FOLDER/answer.txt"}),
        (["completion", ""], {"bash", "zsh", "fish", "tcsh", "powershell"}),
        (["ask", "-o", "FOLDER/ans"], {"FOLDER/answer.txt"}),
        (["ask", "--model", "FOLDER/ans"], {"FOLDER/answer.txt"}),
        (["route", "--csv", "FOLDER/ans"], {"FOLDER/answer.txt"}),
    ],
)
def test_bash_offers_commands_options_values_and_files(script, tmp_path, words, offered):
    (tmp_path / "answer.txt").touch()
    place = lambda text: text.replace("FOLDER", str(tmp_path))  # noqa: E731
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", "sot", *map(place, words)],
        input=script,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == set(map(place, offered))
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh", "powershell"])
def test_other_shells_have_a_script(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(name in out for name in ("train-router", "max-points"))


def test_a_missing_shtab_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "pip install" in err
    assert "completion]" in err


@pytest.mark.parametrize("words", [[], ["csh"]])
def test_an_unknown_shell_is_answered_with_the_known_ones(words, capsys):
    assert main(["completion", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert ("SHELL" if not words else "bash") in err
