"""Tokenizers as objects with the same methods: that of workflows, those that build_tokenizer.py makes for any schema,
and the baselines, byte-level BPE over compact JSON of workflows.

"bpe" splits the text with a pattern before merging (pre-tokenization). "bpe-unsplit" does not, so its merges cross word
boundaries.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import tct_github_workflow as tct
from script_tools.files import write_atomic
from tct.symbols import PAD
from tct.tokenizer import Tokenizer as SchemaTokenizer
from tct_github_workflow import partial_yaml, workflow_yaml

FILE = "tokenizer.json"  # in a prepared folder and next to a checkpoint: any tokenizer but that of workflows
TCT, NAMES = "tct", ("bpe", "bpe-unsplit")  # values of the flag --tokenizer: that of workflows, and the baselines
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
            kinds = "neither an artifact of build_tokenizer.py nor a baseline"
            raise ValueError(f"{path} is not a tokenizer, {kinds}: {error}") from None
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
    """Encode compact JSON text as token ids, and decode them: the tokenizer of workflows.

        >>> tokenizer = TCTTokenizer()
        >>> ids = tokenizer.encode('{"on":"push","jobs":{"a":{"runs-on":"ubuntu-latest"}}}')
        >>> tokenizer.decode(ids)
        '{"on":"push","jobs":{"a":{"runs-on":"ubuntu-latest"}}}'

    There are no begin and end tokens: a document ends when its root object closes.
    """

    name = tct.NAME
    rules = tct.RULES  # what its documents may have to fulfil, each more than the one before
    default_rules = "github"
    is_workflow, kind = True, "workflow"
    dump = staticmethod(workflow_yaml.dump_workflow)

    def __init__(self):
        self.library = tct.tokenizer()

    @property
    def pad_token(self) -> int:
        return self.library.pad_token()

    @property
    def fingerprint(self) -> str:
        """A hash of the vocabulary: data and checkpoints must have the same."""
        return self.library.fingerprint

    def get_vocab_size(self) -> int:
        return self.library.vocab_size()

    def get_pad_token_id(self) -> int:
        return self.library.pad_token()

    def encode(self, text: str | list[str]) -> list:
        """Return the ids of one JSON text, or of each of several. Raise ValueError if one is not valid."""
        return self.library.encode(text) if isinstance(text, str) else list(map(self.library.encode, text))

    def encode_batch(self, texts: list[str], num_threads: int | None = None) -> list:
        """Return an array of ids for each JSON text."""
        return self.library.encode_batch(texts, num_threads)

    def encode_prefix(self, partial):
        """Encode a partial document in YAML or JSON, cut anywhere, or a value. Raise ValueError if none starts so."""
        return partial_yaml.encode_prefix(self.library, partial)

    def decode(self, ids) -> str:
        """Return the document. Raise ValueError if it is incomplete, or if more than padding follows it."""
        ids = list(ids)
        text, consumed, total = self.library.decode(ids)
        if any(token != self.pad_token for token in ids[consumed:]):
            raise ValueError(f"{total - consumed} tokens follow the complete document")
        return text

    def id_to_token(self, token: int) -> str:
        """Return a readable name of a token."""
        return self.library.id_to_token(token)

    def extract_window(self, ids, start: int, end: int, stride: int = 1) -> list[int]:
        """Return [start // stride] + ids[start:end], as in a training window."""
        return self.library.extract_window(ids, start, end, stride)

    def decode_prefix(self, ids) -> str:
        """Return the beginning of a document from its first ids, closed to valid JSON."""
        return self.library.decode_prefix(ids)[0]

    def matcher(self, rules: str = "schema"):
        """Return a new matcher, which knows the tokens that are allowed next under some of `rules`."""
        return tct.matcher(rules)


class ArtifactTokenizer(TCTTokenizer):
    """The tokenizer of any schema: an artifact of build_tokenizer.py. It knows the schema and no rules beyond it."""

    name = "artifact"
    rules = ("schema",)
    default_rules = "schema"
    is_workflow, kind = False, "document"
    dump = staticmethod(workflow_yaml.dump_document)

    def __init__(self, library: SchemaTokenizer, artifact: bytes):
        self.library, self._artifact = library, artifact

    @classmethod
    def load(cls, path: str | Path) -> "ArtifactTokenizer":
        """Load an artifact. Raise OSError or ValueError if the file is not one."""
        path = Path(path).expanduser()
        return cls._load(path, path.read_bytes())

    @classmethod
    @lru_cache(maxsize=4)  # compiling a schema takes up to seconds, and each chunk of a preparation loads it
    def _load(cls, path: Path, artifact: bytes) -> "ArtifactTokenizer":
        library = SchemaTokenizer.load(path)
        if library.vocab_size() > MAX_TOKENS:
            raise ValueError(f"{path} has {library.vocab_size():,} tokens, but int16 holds {MAX_TOKENS:,}")
        return cls(library, artifact)

    def save(self, path: str | Path):
        write_atomic(Path(path), self._artifact)

    def matcher(self, rules: str = "schema"):
        if rules not in self.rules:
            raise ValueError(f"documents of this schema have no rules beyond it: rules must be schema, not {rules!r}")
        return self.library.matcher()


def is_artifact(path: str | Path) -> bool:
    """Return whether a file looks like an artifact of build_tokenizer.py. Raise OSError if it cannot be read."""
    try:
        return "schema_sha256" in json.loads(Path(path).expanduser().read_bytes())
    except (ValueError, TypeError):
        return False


def load_tokenizer(path: str | Path) -> ArtifactTokenizer | BPETokenizer:
    """Load a tokenizer from its file. Raise OSError or ValueError if the file is not one."""
    return ArtifactTokenizer.load(path) if is_artifact(path) else BPETokenizer.load(path)
