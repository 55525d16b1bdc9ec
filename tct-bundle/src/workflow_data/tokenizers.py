"""The workflow tokenizer as an object, and the baselines with the same methods: byte-level BPE over compact JSON.

"bpe" splits the text with a pattern before merging (pre-tokenization). "bpe-unsplit" does not, so its merges cross word
boundaries.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import tct_github_workflow as tct
from script_tools.files import write_atomic
from tct.symbols import PAD

NAMES = ("bpe", "bpe-unsplit")
PAD_TEXT, END_TEXT = "<pad>", "<end>"  # tokens 0 and 1; in a document these texts are ordinary text
END = 1
MAX_TOKENS = 2**15  # windows are int16
# The pattern of GPT-4's tokenizer (cl100k_base of tiktoken).
SPLIT = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
PIECE_BYTES = 1000  # "bpe-unsplit" learns from pieces of this size, because the library is slow on long ones


class BPETokenizer:
    """Encode compact JSON text as token ids, and decode them. Each document ends with the token END.

    >>> tokenizer = BPETokenizer.train(['{"on":"push"}'] * 9)
    >>> tokenizer.decode(tokenizer.encode('{"on":"push"}'))
    '{"on":"push"}'
    """

    pad_token, end_token = PAD, END

    def __init__(self, tokenizer: Tokenizer):
        self.library = tokenizer  # an object of the tokenizers library
        self.library.encode_special_tokens = True  # "<end>" in a text is not the end

    @classmethod
    def train(cls, texts: Iterable[str], size: int | None = None, name: str = "bpe") -> "BPETokenizer":
        """Learn merges from texts until there are `size` tokens or no more merges. `name` is one of NAMES.

        The default size is that of the workflow tokenizer.
        """
        tokenizer, to_bytes = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        if name == "bpe":
            split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        else:
            tokenizer.pre_tokenizer = to_bytes
            texts = (piece for text in texts for piece in pieces(text, PIECE_BYTES))
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size or tct.vocab_size(),
            special_tokens=[PAD_TEXT, END_TEXT],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: str | Path) -> "BPETokenizer":
        """Load a tokenizer that `save` wrote. Raise OSError or ValueError if the file is not one."""
        content = Path(path).expanduser().read_bytes()
        try:
            tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{path} is not a tokenizer of the tokenizers library: {error}") from None
        if (tokenizer.token_to_id(PAD_TEXT), tokenizer.token_to_id(END_TEXT)) != (PAD, END):
            raise ValueError(f"{path} must have {PAD_TEXT} and {END_TEXT} as tokens {PAD} and {END}")
        if tokenizer.get_vocab_size() > MAX_TOKENS:
            raise ValueError(f"{path} has {tokenizer.get_vocab_size():,} tokens, but int16 holds {MAX_TOKENS:,}")
        return cls(tokenizer)

    def save(self, path: str | Path):
        write_atomic(Path(path), self.library.to_str().encode())

    @property
    def name(self) -> str:
        """One of NAMES."""
        return NAMES[isinstance(self.library.pre_tokenizer, pre_tokenizers.ByteLevel)]

    @property
    def fingerprint(self) -> str:
        """A hash of the vocabulary: data and checkpoints must have the same."""
        return hashlib.sha256(self.library.to_str().encode()).hexdigest()[:16]

    def get_vocab_size(self) -> int:
        return self.library.get_vocab_size()

    def get_pad_token_id(self) -> int:
        return self.pad_token

    def encode(self, text: str | list[str]) -> list:
        """Return the ids of one text, with END, or a list of ids for each of several."""
        return [*self.library.encode(text).ids, END] if isinstance(text, str) else self.encode_batch(text)

    def encode_batch(self, texts: list[str], num_threads: int | None = None) -> list[list[int]]:
        """Encode in bulk. The library reads its number of threads from RAYON_NUM_THREADS."""
        return [[*encoding.ids, END] for encoding in self.library.encode_batch_fast(texts)]

    def decode(self, ids) -> str:
        """Return the text before END. Raise ValueError if there is no END, or if more than padding follows it."""
        ids = list(ids)
        if END not in ids:
            raise ValueError("the document is not complete: it has no end token")
        end = ids.index(END)
        if any(token != PAD for token in ids[end + 1 :]):
            raise ValueError(f"{len(ids) - end - 1} tokens follow the complete document")
        return self.decode_prefix(ids[:end])

    def decode_prefix(self, ids) -> str:
        """Return the text up to the first END, if there is one. An incomplete character becomes U+FFFD."""
        ids = list(ids)
        end = ids.index(END) if END in ids else len(ids)
        return self.library.decode(ids[:end], skip_special_tokens=False)

    def encode_prefix(self, text: str) -> list[int]:
        """Return the ids of the beginning of a text, without END."""
        return self.library.encode(text).ids

    def id_to_token(self, token: int) -> str:
        """Return a readable name of a token."""
        return {PAD: PAD_TEXT, END: END_TEXT}.get(token) or self.library.decode([token], skip_special_tokens=False)

    def extract_window(self, ids, start: int, end: int, stride: int = 1) -> list[int]:
        """Return [start // stride] + ids[start:end], as in a training window."""
        return tct.extract_window(ids, start, end, stride)


def pieces(text: str, size: int) -> Iterator[str]:
    """Cut a text between characters into pieces of at most `size` bytes, which must be at least 4.

    >>> list(pieces("naïve", 4))
    ['naï', 've']
    """
    data, start = text.encode(), 0
    while start < len(data):
        end = min(start + size, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # inside a character
            end -= 1
        yield data[start:end].decode()
        start = end


class TCTTokenizer:
    """Encode compact JSON text as token ids, and decode them.

        >>> tokenizer = TCTTokenizer()
        >>> ids = tokenizer.encode('{"on":"push","jobs":{"a":{"runs-on":"ubuntu-latest"}}}')
        >>> tokenizer.decode(ids)
        '{"on":"push","jobs":{"a":{"runs-on":"ubuntu-latest"}}}'

    There are no begin and end tokens: a document ends when its root object closes.
    """

    name = tct.NAME

    @property
    def pad_token(self) -> int:
        return tct.pad_token()

    @property
    def fingerprint(self) -> str:
        """A hash of the vocabulary: data and checkpoints must have the same."""
        return tct.fingerprint()

    def get_vocab_size(self) -> int:
        return tct.vocab_size()

    def get_pad_token_id(self) -> int:
        return tct.pad_token()

    def encode(self, text: str | list[str]) -> list:
        """Return the ids of one JSON text, or of each of several. Raise ValueError if one is not valid."""
        return tct.encode(text) if isinstance(text, str) else [tct.encode(item) for item in text]

    def encode_batch(self, texts: list[str], num_threads: int | None = None) -> list:
        """Return an array of ids for each JSON text."""
        return tct.encode_batch(texts, num_threads)

    def decode(self, ids) -> str:
        """Return the document. Raise ValueError if it is incomplete, or if more than padding follows it."""
        ids = list(ids)
        text, consumed, total = tct.decode(ids)
        if any(token != tct.pad_token() for token in ids[consumed:]):
            raise ValueError(f"{total - consumed} tokens follow the complete document")
        return text

    def id_to_token(self, token: int) -> str:
        """Return a readable name of a token."""
        return tct.id_to_token(token)

    def extract_window(self, ids, start: int, end: int, stride: int = 1) -> list[int]:
        """Return [start // stride] + ids[start:end], as in a training window."""
        return tct.extract_window(ids, start, end, stride)

    def decode_prefix(self, ids) -> str:
        """Return the beginning of a workflow from its first ids, closed to valid JSON."""
        return tct.decode_prefix(ids)[0]

    def matcher(self):
        """Return a new matcher, which knows the tokens that are allowed next."""
        return tct.matcher()
