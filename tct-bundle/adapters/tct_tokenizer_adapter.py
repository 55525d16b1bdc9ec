"""The workflow tokenizer behind the methods that nanochat's training loop calls on a tokenizer."""

import tct_github_workflow as tct


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
