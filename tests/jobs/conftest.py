"""A base model so small that loading it is the work: made once per session, from nothing but code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jobs_samples import chat, make_tokenizer, write_lines


@pytest.fixture
def tokenizer() -> Any:
    """A byte-level tokenizer of 320 tokens; a fresh one, since tests change its template."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random Llama of 25,000 parameters and its tokenizer; not to be written to."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("models") / "base"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture
def chat_file(tmp_path: Path) -> Path:
    """Twelve short conversations."""
    return write_lines(tmp_path / "chat.jsonl", [chat(f"How are you, {i}?", f"I am fine {'!' * i}") for i in range(12)])
