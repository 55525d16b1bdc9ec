"""The errors that tct raises; all are ValueErrors with a one-line message for the user."""


class UnsupportedSchemaError(ValueError):
    """A schema that cannot be enforced exactly: the message names the keyword and its JSON pointer."""

    def __init__(self, keyword: str, pointer: str, reason: str):
        self.keyword, self.pointer = keyword, pointer
        super().__init__(f"cannot compile the schema: {keyword!r} at {pointer or '#'}: {reason}")


class SchemaValidationError(ValueError):
    """A document outside the language of the schema: the message starts with its JSON path.

    `steps` are the keys and indices on that path.
    """

    def __init__(self, path: str, reason: str, steps: tuple[str | int, ...] = ()):
        self.path, self.reason, self.steps = path, reason, steps
        super().__init__(f"{path}: {reason}")
