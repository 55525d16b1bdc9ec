"""tct: type-constrained tokenization for JSON documents that follow a JSON Schema.

From a schema to tokens, one file per step:

    references.py       where references lead, within a schema and to others
    schema.py           JSON Schema -> formulas (formula.py) over assertions (assertions.py); unevaluated.py is a part
    reachability.py     which formulas a value can satisfy together: this rules out dead ends
    formats.py          formats as patterns
    text.py             strings: patterns (regex.py) as automata over characters (automata.py) and bytes (utf8.py)
    machine.py          the type machine: a graph of nodes for values, objects and arrays
    codec.py            documents <-> base symbols (symbols.py, numbers.py, multiples.py)
    bpe.py              base symbols <-> tokens
    state.py            half-read documents, symbol by symbol; completion.py finishes them
    masks.py            the tokens that a state allows; schema_position.py numbers states for models
    vocabulary.py       the machine, the tokens, and what is cached for both
    matcher.py          all of that behind one class
    partial_document.py what a document that is cut anywhere says (partial_json.py reads it); prefix.py encodes it
    tokenizer.py        the whole interface, and the artifact
"""

from tct.errors import SchemaValidationError, TimeLimitError, UnsupportedSchemaError
from tct.matcher import Matcher
from tct.tokenizer import CompiledSchema, Tokenizer, compile_json_schema

__all__ = [
    "CompiledSchema",
    "Matcher",
    "SchemaValidationError",
    "TimeLimitError",
    "Tokenizer",
    "UnsupportedSchemaError",
    "compile_json_schema",
]
