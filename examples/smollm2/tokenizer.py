# SPDX-License-Identifier: Apache-2.0
"""Text to tokens and back: byte-level BPE built from the vocabulary and merges in the model's own
file.

Special tokens such as <|im_end|> are matched before anything else, then each digit stands alone,
then the text is cut by the GPT-2 pattern and merged.
"""

from dataclasses import dataclass

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END_OF_ANSWER = "<|im_end|>"


def chat_text(system: str, user: str) -> str:
    """A question in the ChatML form that the model was trained on, up to where it answers."""
    messages = [("system", system), ("user", user)]
    return (
        "".join(f"<|im_start|>{role}\n{text}{END_OF_ANSWER}\n" for role, text in messages)
        + "<|im_start|>assistant\n"
    )


def build_bpe(vocabulary: list[str], merges: list[str], special: list[str]) -> Tokenizer:
    bpe = models.BPE(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=[tuple(merge.split(" ", 1)) for merge in merges],
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@dataclass(frozen=True)
class ChatTokenizer:
    bpe: Tokenizer
    end_token: int

    @classmethod
    def from_gguf(cls, reader: gguf.GGUFReader) -> "ChatTokenizer":
        def field(name):
            return reader.get_field(f"tokenizer.ggml.{name}").contents()

        vocabulary = field("tokens")
        special = [
            token
            for token, kind in zip(vocabulary, field("token_type"))
            if kind == gguf.TokenType.CONTROL
        ]
        return cls(build_bpe(vocabulary, field("merges"), special), field("eos_token_id"))

    def encode_chat(self, system: str, user: str) -> list[int]:
        return self.encode(chat_text(system, user))

    def encode(self, text: str) -> list[int]:
        return self.bpe.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: list[int]) -> str:
        """The text without special tokens; the bytes of an unfinished character are left out."""
        return self.bpe.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")
