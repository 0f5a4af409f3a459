"""A language model of 300 KB with random weights, as a GGUF file: ``python tests/tiny_gguf.py MODEL.gguf``.

It says nothing that makes sense, but a real engine loads it, counts its tokens, and holds its answers to a grammar.
Needs the packages ``gguf`` and ``numpy``.
"""

import sys

import gguf
import numpy as np

CONTEXT = 2048
WIDTH, HIDDEN, HEADS, LAYERS = 64, 128, 4, 2
SPECIAL = ("<unk>", "<s>", "</s>")


def vocabulary() -> tuple[list[str], list[int]]:
    """The special tokens, one for each byte, and one for each printable ASCII character; with their types."""
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(0x21, 0x7F))]
    kinds = gguf.TokenType
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    return tokens, [*types, *[kinds.NORMAL] * (len(tokens) - len(types))]


def write(path: str) -> None:
    """Writes the model."""
    tokens, types = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(tokens) - 259)])
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    random = np.random.default_rng(1)

    def add(name: str, *shape: int) -> None:
        norm = name.endswith("norm.weight")
        weights = np.ones(shape, np.float32) if norm else random.normal(0, 0.3, shape).astype(np.float16)
        writer.add_tensor(name, weights)

    add("token_embd.weight", len(tokens), WIDTH)
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate.weight", HIDDEN, WIDTH)
        add(f"blk.{layer}.ffn_up.weight", HIDDEN, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, HIDDEN)
        add(f"blk.{layer}.attn_norm.weight", WIDTH)
        add(f"blk.{layer}.ffn_norm.weight", WIDTH)
    add("output_norm.weight", WIDTH)
    add("output.weight", len(tokens), WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(sys.argv[1])
