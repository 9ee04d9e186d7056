"""Folders and files of any kind of model: text and vision-language models load, others are refused by what they are."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_vision import VISION, save, vision_model

from skeleton_of_thought.errors import InvalidInput, ModelLoadError
from skeleton_of_thought.local import LocalEngine
from skeleton_of_thought.local.models import has_chat_template
from skeleton_of_thought.types import Message

TEXT = "Bread needs flour"


def saved(kind: str, tokenizer: Any, folder: Path) -> tuple[Any, str]:
    model = vision_model(kind)
    if model is None:
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    return model, save(model, tokenizer, folder)


@pytest.mark.parametrize("kind", VISION)
def test_a_vision_language_model_is_loaded_by_name_and_writes_its_own_text(
    kind: str, tokenizer: Any, tmp_path: Path
) -> None:
    model, folder = saved(kind, tokenizer, tmp_path)
    ids = torch.tensor([tokenizer(TEXT).input_ids])
    greedy = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    expected = model.generate(ids, attention_mask=torch.ones_like(ids), **greedy)[0, ids.shape[1] :].tolist()
    with LocalEngine.from_pretrained(folder) as engine:
        short, _ = engine.generate([TEXT, f"{TEXT}, water and salt"], max_new_tokens=6, ignore_eos=True)
        forwards = engine.stats().forwards
        with pytest.raises(InvalidInput, match="takes text only, but a message has content of type image"):
            engine.stream([Message("user", ({"type": "image", "url": "x"}, {"type": "text", "text": "What?"}))])
        assert engine.stats().forwards == forwards
    assert list(short.token_ids) == expected


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json"])
def test_the_chat_template_of_a_processor_is_found(name: str, tiny: Any, tmp_path: Path) -> None:
    template = "{% for m in messages %}({{ m.role }}){{ m.content }}{% endfor %}"
    _, folder = saved("Llava", tiny.make_tokenizer(template=None), tmp_path)
    assert has_chat_template(folder) is False
    image = {"image_processor_type": "CLIPImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**image, "processor_class": "LlavaProcessor"}))
    text = template if name.endswith("jinja") else json.dumps({"chat_template": template})
    (tmp_path / name).write_text(text)
    assert has_chat_template(folder) is True
    with LocalEngine.from_pretrained(folder) as engine:
        assert engine.render([Message("user", "Hi")]) == "(user)Hi"


# --- what is no text model ---------------------------------------------------------------------------


def folder_of(tmp_path: Path, config: dict[str, Any], name: str = "config.json") -> str:
    (tmp_path / name).write_text(json.dumps(config))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            r"an encoder-decoder \(T5ForConditionalGeneration\)",
        ),
        ({"model_type": "t5"}, r"an encoder-decoder \(t5\)"),
        ({"model_type": "bart", "architectures": ["BartForConditionalGeneration"]}, "an encoder-decoder"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, r"an encoder \(BertForMaskedLM\)"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, r"an encoder \(BertModel\)"),
        ({"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]}, "an encoder"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "a classifier"),
        ({"model_type": "roberta", "architectures": ["RobertaForTokenClassification"]}, "a classifier"),
        ({"model_type": "llama", "architectures": ["LlamaModel"]}, "without the layer that writes text"),
        ({"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]}, "a speech or audio model"),
        ({"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"]}, "a speech or audio model"),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "an image model"),
        ({"model_type": "detr", "architectures": ["DetrForObjectDetection"]}, "an image model"),
        ({"model_type": "clip", "architectures": ["CLIPModel"]}, r"an image model|no text model"),
    ],
)
def test_another_kind_of_model_is_refused_by_what_it_is(tmp_path: Path, config: dict[str, Any], kind: str) -> None:
    folder = folder_of(tmp_path, config)
    with pytest.raises(ModelLoadError, match=f"is {kind}|is a model {kind}") as error:
        LocalEngine.from_pretrained(folder)
    assert "models that continue a text" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_diffusion_pipeline_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"_class_name": "StableDiffusionPipeline"}, "model_index.json")
    with pytest.raises(ModelLoadError, match=r"a diffusion pipeline \(StableDiffusionPipeline\)"):
        LocalEngine.from_pretrained(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
        {"model_type": "gpt2", "architectures": ["GPT2Model"]},  # its input layer also writes
        {"model_type": "gpt2"},
        {"model_type": "bart", "architectures": ["BartForCausalLM"], "is_encoder_decoder": False, "is_decoder": True},
        {"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True},
        {"model_type": "opt", "architectures": ["OPTForCausalLM"]},
    ],
)
def test_a_text_model_gets_its_class(tmp_path: Path, config: dict[str, Any]) -> None:
    from skeleton_of_thought.local.model_kinds import find_class

    assert find_class(folder_of(tmp_path, config), {}) is transformers.AutoModelForCausalLM


# --- GGUF files --------------------------------------------------------------------------------------


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(path: Path, architecture: str, *, template: str | None) -> Path:
    """The metadata of a GGUF file, with an array of tokens before the template, as files have them."""
    fields = [
        (string("general.architecture"), struct.pack("<I", 8) + string(architecture)),
        (string("x.sizes"), struct.pack("<IIQ", 9, 4, 3) + bytes(12)),
        (string("x.epsilon"), struct.pack("<If", 6, 0.5)),
        (
            string("tokenizer.ggml.tokens"),
            struct.pack("<IIQ", 9, 8, 3) + b"".join(map(string, ("a", "tokenizer.chat_template", "ä"))),
        ),
    ]
    if template is not None:
        fields.append((string("tokenizer.chat_template"), struct.pack("<I", 8) + string(template)))
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields)) + b"".join(map(b"".join, fields)))
    return path


@pytest.mark.parametrize(("template", "found"), [("{{ messages }}", True), (None, False)])
def test_the_template_of_a_gguf_file_is_found_without_a_conversion(
    tmp_path: Path, template: str | None, found: bool
) -> None:
    assert has_chat_template(gguf(tmp_path / "m.gguf", "llama", template=template)) is found


def test_the_demo_models_template_is_found() -> None:
    try:
        assert has_chat_template(None) is True
    except ModelLoadError:
        pytest.skip("the demo model is not installed")


@pytest.mark.parametrize(
    "content", [b"", b"no such file", b"GGUF\x03\x00\x00\x00", b"GGUF" + struct.pack("<IQQ", 3, 0, 9)]
)
def test_a_broken_file_is_no_reason_to_stop_here(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert has_chat_template(path) is None


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("bert", "an encoder"), ("t5", "an encoder-decoder"), ("clip", "the image part"), ("whisper", "a speech")],
)
def test_another_kind_of_gguf_file_is_refused_before_its_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, kind: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = gguf(tmp_path / "m.gguf", architecture, template=None)
    steps: list[str] = []
    with pytest.raises(ModelLoadError, match=f"{kind}.*{architecture}"):
        LocalEngine.from_pretrained(path, progress=steps.append)
    assert steps == []
