"""The errors that tct raises. Each is a ValueError with a one-line message for the user."""


class UnsupportedSchemaError(ValueError):
    """The schema cannot be enforced exactly. The message names the keyword and its JSON pointer."""

    def __init__(self, keyword: str, pointer: str, reason: str):
        self.keyword, self.pointer = keyword, pointer
        super().__init__(f"cannot compile the schema: {keyword!r} at {pointer or '#'}: {reason}")


class TimeLimitError(UnsupportedSchemaError):
    """The schema takes longer to compile than the caller allows. The message names the limit."""

    def __init__(self, seconds: float):
        super().__init__("schema", "#", f"it takes more than {seconds:g} seconds: simplify it, or raise the limit")


class SchemaValidationError(ValueError):
    """The document is not valid under the schema. The message starts with the JSON path.

    `steps` are the keys and indices on that path.
    """

    def __init__(self, path: str, reason: str, steps: tuple[str | int, ...] = ()):
        self.path, self.reason, self.steps = path, reason, steps
        super().__init__(f"{path}: {reason}")
