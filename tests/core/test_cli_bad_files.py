"""Files that are not what their option says: one line and exit code 2, before a model is asked."""

from __future__ import annotations

import json
import os
import pickle
import select
import struct
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest
import scripted_cli

from skeleton_of_thought.cli import main
from skeleton_of_thought.errors import InvalidInput
from skeleton_of_thought.routers.embedded import BUCKETS, EmbeddedRouter, Weights
from skeleton_of_thought.small_files import parse_json, read_bounded

DEEP = b"[" * 100_000 + b"]" * 100_000
LONG = b'{"words": ' + b"7" * 5000 + b"}"
HEAD = {
    "format": "sot-embedded-router 2",
    **{"unit": 0.1, "bias": 0.0, "slope": 1.0, "offset": 0.0, "threshold": 0.5},
    "about": {},
}
BUCKET_BYTES = zlib.compress(b"\x80" * BUCKETS)
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


def weights(head=HEAD, packed=BUCKET_BYTES, length=None):
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<I", len(head) if length is None else length) + head + packed


class Dangerous:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def refused(words, capsys):
    """Runs the command, which must refuse; returns its line."""
    script = scripted_cli.Script()
    assert main(words, backend=script.backend()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), script.calls) == ("", 1, [])
    assert err.startswith("sot: error: ")
    assert len(err) < 1000
    return err


GARBAGE = {
    "empty": b"",
    "deep": DEEP,
    "unclosed": b"[" * 100_000,
    "long number": LONG,
    "nul": bytes(100),
    "random": bytes(range(256)) * 9,
    "escapes": b'{"\x1b]0;x\x07": 1}',
    "list": b"[1]",
    "text": b'"x"',
    "null": b"null",
    "half a pair": b'{"outline_prompt": 1, "\\ud800": "\\udfff"}',
    "utf-16": "{}".encode("utf-16"),
    "pickle": pickle.dumps([1]),
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_bad_prompt_file_is_refused(tmp_path, capsys, content):
    file = tmp_path / "prompts.json"
    file.write_bytes(content)
    assert "rompt" in refused(["ask", "--prompts", str(file), "Why?"], capsys)


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_bad_file_of_weights_is_refused(tmp_path, capsys, content):
    file = tmp_path / "router.bin"
    file.write_bytes(content)
    assert "holds no weights" in refused(["route", "--weights", str(file), "Why?"], capsys)
    file.write_bytes(weights(content))
    assert "holds no weights" in refused(["route", "--weights", str(file), "Why?"], capsys)


TOML = {
    "deep": b"words = " + b"[" * 20_000 + b"]" * 20_000,
    "deep key": b".".join([b"words"] * 5_000) + b" = 1",
    "less deep key": b".".join([b"words"] * 300) + b" = 1",
    "long key": b"x" * 60_000 + b" = 1",
    "long text": b'words = "' + b"x" * 60_000 + b'"',
    "long choice": b'on-point-error = "' + b"x" * 60_000 + b'"',
    "long date": b"words = [" + b"2020-01-01, " * 4_000 + b"]",
    "long number": b"words = " + b"7" * 5000,
    "nul": b"\x00",
    "random": GARBAGE["random"],
    "nul in a name": b'prompts = "a\\u0000b"',
    "nul in a model": b'model = "./a\\u0000b"',
    "escapes": b'"\\u001b]0;x\\u0007" = 1',
    "date": b"words = 2020-01-01",
    "too long": b"# " + b"x" * 100_000,
}


@pytest.mark.parametrize("content", TOML.values(), ids=TOML.keys())
def test_a_bad_configuration_file_is_refused(tmp_path, monkeypatch, capsys, content):
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    monkeypatch.setenv("SOT_CONFIG", str(file))
    refused(["ask", "Why?"], capsys)


CSV = {
    "bytes": b"question\na\xff\n",
    "bytes in the head": b"question\xff\na\n",
    "half a pair": b"question\n\xed\xa0\x80\n",
    "long field": b"question\n" + b"x" * 200_000,
    "utf-16": "question\nWhy?\n".encode("utf-16"),
    "empty": b"",
}


@pytest.mark.parametrize("content", CSV.values(), ids=CSV.keys())
def test_a_bad_csv_file_is_refused(tmp_path, capsys, content):
    file = tmp_path / "questions.csv"
    file.write_bytes(content)
    refused(["route", "--csv", str(file)], capsys)
    refused(["train-router", "--embedded", "--out", str(tmp_path / "x"), "--data", str(file)], capsys)


OPTIONS = [["ask", "Why?", "--prompts"], ["route", "Why?", "--weights"], ["route", "--csv"]]


@pytest.mark.parametrize("words", OPTIONS, ids=lambda words: words[-1])
@pytest.mark.parametrize("name", [".", "/dev/zero", "gone", "x" * 300, "a\0b", ""], ids=lambda name: repr(name[:9]))
def test_what_is_no_ordinary_file_is_refused(tmp_path, monkeypatch, capsys, words, name):
    monkeypatch.chdir(tmp_path)
    refused([*words, name], capsys)


@needs_pipes
@pytest.mark.parametrize("words", OPTIONS[:2], ids=lambda words: words[-1])
def test_a_pipe_that_nobody_writes_to_does_not_hang(tmp_path, capsys, words):
    os.mkfifo(tmp_path / "pipe")
    refused([*words, str(tmp_path / "pipe")], capsys)


@needs_pipes
def test_a_configuration_pipe_does_not_hang(tmp_path, monkeypatch, capsys):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("SOT_CONFIG", str(tmp_path / "pipe"))
    assert main(["config"]) == 0
    assert "built in" in capsys.readouterr().out


@needs_pipes
def test_a_pipe_with_a_writer_is_read_to_its_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reading = threading.Event()

    def write():
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            pipe.write(b"one ")
            reading.wait(30)
            pipe.write(b"two")

    writer = threading.Thread(target=write)
    held = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)  # so that the writer can open it first
    writer.start()
    assert select.select([held], [], [], 30)[0]
    threading.Timer(0.05, reading.set).start()
    try:
        assert read_bounded(tmp_path / "pipe", 100) == b"one two"
    finally:
        os.close(held)
        writer.join(30)


# --- weights ---


@pytest.mark.parametrize("inflated", [0, 1, BUCKETS - 1, BUCKETS + 1, 1 << 28])
def test_weights_of_another_size_are_refused_before_they_are_inflated(tmp_path, inflated):
    packer = zlib.compressobj()
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(inflated >> 20))
    packed += packer.compress(bytes(inflated & ((1 << 20) - 1))) + packer.flush()
    file = tmp_path / "router.bin"
    file.write_bytes(weights(packed=packed))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="131,072 weights"):
            EmbeddedRouter(weights=file)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        weights(packed=BUCKET_BYTES[:-3]),
        weights(packed=BUCKET_BYTES + b"more"),
        weights(packed=b"PK\x03\x04" + BUCKET_BYTES),
        weights(length=2**32 - 1),
        weights(length=0),
        weights({**HEAD, "format": "another"}),
        weights({**HEAD, "unit": "0.1"}),
        weights({**HEAD, "slope": None}),
        weights({**HEAD, "bias": float("nan")}),
        weights({**HEAD, "bias": float("inf")}),
        weights({**HEAD, "offset": 10**400}),
        weights({name: value for name, value in HEAD.items() if name != "threshold"}),
    ],
)
def test_weights_that_could_not_be_used_are_refused(tmp_path, content):
    file = tmp_path / "router.bin"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match="holds no weights"):
        EmbeddedRouter(weights=file)


def test_nothing_in_a_file_of_weights_is_run(tmp_path):
    made, file = tmp_path / "made", tmp_path / "router.bin"
    danger = pickle.dumps(Dangerous(made))
    for content in (danger, weights(danger), weights(packed=danger), weights(packed=zlib.compress(danger))):
        file.write_bytes(content)
        with pytest.raises(InvalidInput):
            EmbeddedRouter(weights=file)
    assert not made.exists()
    pickle.loads(danger)
    assert made.exists()  # so the pickle does what the test assumes


def test_weights_are_read_as_they_were_written(tmp_path):
    before = Weights(bytes(range(256)) * (BUCKETS // 256), 0.5, -1.0, 2, 0.25, 0.5, {"questions": 3})
    before.write(tmp_path / "router.bin")
    assert Weights.read(tmp_path / "router.bin") == before


def test_deep_json_is_a_value_error():
    with pytest.raises(ValueError, match="too deeply"):
        parse_json(DEEP)
