"""The tokenizer of the simulated model: generated, so that nothing is downloaded, and readable by man and machine.

Every whitespace-separated word is one token. Words ``w3`` to ``w4095`` are what the mocker draws from (it uses token
ids from about 1000 to 2000), words ``p0`` to ``p12287`` are the ruler's positions, any other word is ``<unk>``.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from agents.core import scratch

MODEL = "Qwen/Qwen3-0.6B"
FIRST_POSITION_ID = 4096
POSITIONS = 12288
_SPECIAL = ("<unk>", "<|im_start|>", "<|im_end|>")
_REVISION = "1".rjust(40, "0")
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }} : {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


def ensure(home: Path) -> Path:
    """Lay the model out as a Hugging Face cache below ``home`` unless it is there; returns ``home`` for ``HF_HOME``.

    Safe when several processes do it at once: the folder appears whole or not at all.
    """
    repository = home / "hub" / ("models--" + MODEL.replace("/", "--"))
    if repository.exists():
        return home
    repository.parent.mkdir(parents=True, exist_ok=True)
    with scratch.folder(repository.parent, ".draft-") as draft:
        snapshot = draft / "snapshots" / _REVISION
        snapshot.mkdir(parents=True)
        (draft / "refs").mkdir()
        (draft / "refs" / "main").write_text(_REVISION)
        for name, content in _files().items():
            (snapshot / name).write_text(json.dumps(content))
        draft.chmod(0o755)
        with contextlib.suppress(OSError):  # another process was first
            os.rename(draft, repository)
    return home


def contents() -> dict[str, str]:
    """The same as text: path below ``home`` -> what is in the file."""
    repository = "hub/models--" + MODEL.replace("/", "--")
    found = {f"{repository}/refs/main": _REVISION}
    return found | {f"{repository}/snapshots/{_REVISION}/{name}": json.dumps(each) for name, each in _files().items()}


def _files() -> dict[str, Any]:
    words = [*_SPECIAL, *(f"w{number}" for number in range(len(_SPECIAL), FIRST_POSITION_ID))]
    words += [f"p{position}" for position in range(POSITIONS)]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": number, "content": word} | special for number, word in enumerate(_SPECIAL)],
            "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": None,
            "decoder": None,
            "model": {
                "type": "WordLevel",
                "vocab": {word: number for number, word in enumerate(words)},
                "unk_token": _SPECIAL[0],
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": _SPECIAL[0],
            "eos_token": _SPECIAL[2],
            "model_max_length": 32768,
            "chat_template": _CHAT_TEMPLATE,
        },
        "config.json": {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": len(words),
            "max_position_embeddings": 32768,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "torch_dtype": "bfloat16",
        },
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": [2]},
    }
