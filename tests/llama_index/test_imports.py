"""The modules that imports load, and the files in the wheel."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llama_index_sot


def test_no_name_loads_torch_transformers_or_langchain():
    heavy = ["torch", "transformers", "langchain_core", "langchain", "langchain_community"]
    code = (
        "import sys, llama_index_sot\n"
        "for name in llama_index_sot.__all__:\n"
        "    getattr(llama_index_sot, name)\n"
        f"    print(name, *(module for module in {heavy!r} if module in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == llama_index_sot.__all__


def test_importing_the_package_does_not_load_llama_index():
    code = "import sys, llama_index_sot; print('llama_index' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="SkeletonOfThoughtPack"):
        _ = llama_index_sot.SkeletonOfThoughtPack
    assert set(llama_index_sot.__all__) <= set(dir(llama_index_sot))


def test_old_pickles_load_the_local_model():
    code = (
        "import pickle, sys, llama_index_sot; "
        "print(pickle.loads(b'cllama_index_sot.transformers_llm\\nTransformersLLM\\n.').__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "llama_index_sot.local.transformers_llm"
