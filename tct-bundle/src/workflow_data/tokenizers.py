"""The baselines: byte-level BPE over compact JSON, with the methods of TCTTokenizer.

Merges of "bpe" stay within the pieces that a pattern splits the text into; those of "bpe-unsplit" cross any boundary.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import tct_github_workflow as tct
from script_tools.files import write_atomic
from tct.symbols import PAD
from tct_github_workflow import extract_window, vocab_size

NAMES = ("bpe", "bpe-unsplit")
PAD_TEXT, END_TEXT = "<pad>", "<end>"  # tokens 0 and 1; such text in a document is text
END = 1
MOST_TOKENS = 2**15  # windows are int16
# Where GPT-4's tokenizer (tiktoken's cl100k_base) splits text before merging.
SPLIT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
STRETCH = 1000  # bytes; what is not split learns from so much at a time: the library's training is slow in long pieces


class BPETokenizer:
    """Compact JSON text to token ids and back; each document ends with the token END.

    >>> tokenizer = BPETokenizer.train(['{"on":"push"}'] * 9)
    >>> tokenizer.decode(tokenizer.encode('{"on":"push"}'))
    '{"on":"push"}'
    """

    pad_token, end_token = PAD, END

    def __init__(self, tokenizer: Tokenizer):
        self.library = tokenizer  # an object of the tokenizers library
        self.library.encode_special_tokens = True  # "<end>" in a text is no end

    @classmethod
    def train(cls, texts: Iterable[str], size: int | None = None, name: str = "bpe") -> "BPETokenizer":
        """Learns merges from texts until there are `size` tokens (as many as the workflow tokenizer has) or no
        more merges; `name` is one of NAMES."""
        tokenizer, to_bytes = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        if name == "bpe":
            split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        else:
            tokenizer.pre_tokenizer = to_bytes
            texts = (stretch for text in texts for stretch in stretches(text, STRETCH))
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=size or vocab_size(),
                special_tokens=[PAD_TEXT, END_TEXT],
                show_progress=False,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            ),
        )
        return cls(tokenizer)

    @classmethod
    def load(cls, path: str | Path) -> "BPETokenizer":
        """A tokenizer that `save` wrote. OSError or ValueError where there is none."""
        content = Path(path).expanduser().read_bytes()
        try:
            tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"{path} is no tokenizer of the tokenizers library: {error}") from None
        if (tokenizer.token_to_id(PAD_TEXT), tokenizer.token_to_id(END_TEXT)) != (PAD, END):
            raise ValueError(f"{path} has not {PAD_TEXT} and {END_TEXT} as its tokens {PAD} and {END}")
        if tokenizer.get_vocab_size() > MOST_TOKENS:
            raise ValueError(f"{path} has {tokenizer.get_vocab_size():,} tokens; int16 holds {MOST_TOKENS:,}")
        return cls(tokenizer)

    def save(self, path: str | Path):
        write_atomic(Path(path), self.library.to_str().encode())

    @property
    def name(self) -> str:
        """Which of NAMES it is."""
        return NAMES[isinstance(self.library.pre_tokenizer, pre_tokenizers.ByteLevel)]

    @property
    def fingerprint(self) -> str:
        """Identifies the vocabulary; data and checkpoints made with another one do not fit."""
        return hashlib.sha256(self.library.to_str().encode()).hexdigest()[:16]

    def get_vocab_size(self) -> int:
        return self.library.get_vocab_size()

    def get_pad_token_id(self) -> int:
        return self.pad_token

    def encode(self, text: str | list[str]) -> list:
        """The ids of one text and END, or a list for each of several."""
        if isinstance(text, str):
            return [*self.library.encode(text).ids, END]
        return self.encode_batch(text)

    def encode_batch(self, texts: list[str], num_threads: int | None = None) -> list[list[int]]:
        """The same in bulk; the library takes its number of threads from RAYON_NUM_THREADS."""
        return [[*encoding.ids, END] for encoding in self.library.encode_batch_fast(texts)]

    def decode(self, ids) -> str:
        """The text before the token END; ValueError where there is none, or more than padding follows."""
        ids = list(ids)
        if END not in ids:
            raise ValueError("the document is not complete: it has no end token")
        end = ids.index(END)
        if any(token != PAD for token in ids[end + 1 :]):
            raise ValueError(f"{len(ids) - end - 1} tokens follow the complete document")
        return self.decode_prefix(ids[:end])

    def decode_prefix(self, ids) -> str:
        """The text of tokens before the first END, if there is one. A character that is cut becomes U+FFFD."""
        ids = list(ids)
        end = ids.index(END) if END in ids else len(ids)
        return self.library.decode(ids[:end], skip_special_tokens=False)

    def encode_prefix(self, text: str) -> list[int]:
        """The ids of a text that goes on: no END."""
        return self.library.encode(text).ids

    def id_to_token(self, token: int) -> str:
        """A readable name of a token."""
        if token in (PAD, END):
            return (PAD_TEXT, END_TEXT)[token]
        return self.library.decode([token], skip_special_tokens=False)

    def extract_window(self, ids, start: int, end: int, stride: int = 1) -> list[int]:
        """[start // stride] + ids[start:end], the shape of a training row."""
        return extract_window(ids, start, end, stride)


def stretches(text: str, size: int) -> Iterator[str]:
    """The text in pieces of at most `size` bytes, at least 4, of whole characters.

    >>> list(stretches("naïve", 4))
    ['naï', 've']
    """
    data, start = text.encode(), 0
    while start < len(data):
        end = min(start + size, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        yield data[start:end].decode()
        start = end


class TCTTokenizer:
    """Compact JSON text to token ids and back.

        >>> tokenizer = TCTTokenizer()
        >>> ids = tokenizer.encode('{"on":"push","jobs":{"a":{"runs-on":"ubuntu-latest"}}}')
        >>> tokenizer.decode(ids)
        '{"on":"push","jobs":{"a":{"runs-on":"ubuntu-latest"}}}'

    There are no begin or end tokens: a document ends where its root object closes.
    """

    name = tct.NAME

    @property
    def pad_token(self) -> int:
        return tct.pad_token()

    @property
    def fingerprint(self) -> str:
        """Identifies the vocabulary; data and checkpoints made with another one do not fit."""
        return tct.fingerprint()

    def get_vocab_size(self) -> int:
        return tct.vocab_size()

    def get_pad_token_id(self) -> int:
        return tct.pad_token()

    def encode(self, text: str | list[str]) -> list:
        """The ids of one JSON text, or a list for each of several; ValueError where one is not valid."""
        if isinstance(text, str):
            return tct.encode(text)
        return [tct.encode(item) for item in text]

    def encode_batch(self, texts: list[str], num_threads: int | None = None) -> list:
        """An array of ids for each JSON text."""
        return tct.encode_batch(texts, num_threads)

    def decode(self, ids) -> str:
        """The document that the ids spell; ValueError where it is incomplete or more than padding follows."""
        ids = list(ids)
        text, consumed, total = tct.decode(ids)
        if any(token != tct.pad_token() for token in ids[consumed:]):
            raise ValueError(f"{total - consumed} tokens follow the complete document")
        return text

    def id_to_token(self, token: int) -> str:
        """A readable name of a token."""
        return tct.id_to_token(token)

    def extract_window(self, ids, start: int, end: int, stride: int = 1) -> list[int]:
        """[start // stride] + ids[start:end], the shape of a training row."""
        return tct.extract_window(ids, start, end, stride)

    def decode_prefix(self, ids) -> str:
        """What the first ids of a workflow say, closed into JSON that parses."""
        return tct.decode_prefix(ids)[0]

    def matcher(self):
        """A fresh matcher that tells which tokens may come next."""
        return tct.matcher()
