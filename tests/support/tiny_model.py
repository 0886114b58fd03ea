"""A language model of 160 KB with weights from a seed, for a real inference server: a Llama of one layer, as GGUF.

It reads text byte by byte and writes words of its own, and never an end: an answer is as long as max_tokens says, or
endless, and the same prompt at temperature 0 gets the same answer. `llama_cpp` beside serves it.
"""

from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

SEED = 20
WIDTH, HEADS, FEED_FORWARD = 32, 2, 64
CONTEXT = 65_536
MUTE = -100.0

CONTROL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
WORDS = tuple(f"\u2581{onset}{vowel}{coda}" for onset in "bdfklmnprst" for vowel in "aeiou" for coda in ("", "n", "s"))
CHAT_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


def write_model(file: Path) -> None:
    """Write the model; the same bytes each time."""
    writer = gguf.GGUFWriter(file, "llama")
    _describe(writer)
    _add_vocabulary(writer)
    for name, weights in _weights().items():
        writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter) -> None:
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_block_count(1)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    tokens = [*CONTROL, *BYTES, *WORDS]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * len(BYTES) + [gguf.TokenType.NORMAL] * len(WORDS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(CONTROL.index("<unk>"))
    writer.add_bos_token_id(CONTROL.index("<s>"))
    writer.add_eos_token_id(CONTROL.index("</s>"))
    writer.add_chat_template(CHAT_TEMPLATE)


def _weights() -> dict[str, NDArray[np.float64]]:
    """Get every tensor by its name, as [rows, columns].

    They are noise, but for the first dimension: it is 1 in every embedding, nothing adds to it, and through it the last
    matrix mutes all that is no word.
    """
    random = np.random.default_rng(SEED)

    def noise(rows: int, columns: int) -> NDArray[np.float64]:
        return random.normal(0, columns**-0.5, (rows, columns))

    tokens = len(CONTROL) + len(BYTES) + len(WORDS)
    embedding, output = noise(tokens, WIDTH), noise(tokens, WIDTH)
    attention_output, ffn_down = noise(WIDTH, WIDTH), noise(WIDTH, FEED_FORWARD)
    embedding[:, 0] = 1
    attention_output[0] = ffn_down[0] = output[:, 0] = 0
    output[: len(CONTROL) + len(BYTES), 0] = MUTE
    return {
        "token_embd.weight": embedding,
        "blk.0.attn_norm.weight": np.ones(WIDTH),
        "blk.0.attn_q.weight": noise(WIDTH, WIDTH),
        "blk.0.attn_k.weight": noise(WIDTH, WIDTH),
        "blk.0.attn_v.weight": noise(WIDTH, WIDTH),
        "blk.0.attn_output.weight": attention_output,
        "blk.0.ffn_norm.weight": np.ones(WIDTH),
        "blk.0.ffn_gate.weight": noise(FEED_FORWARD, WIDTH),
        "blk.0.ffn_up.weight": noise(FEED_FORWARD, WIDTH),
        "blk.0.ffn_down.weight": ffn_down,
        "output_norm.weight": np.ones(WIDTH),
        "output.weight": output,
    }
