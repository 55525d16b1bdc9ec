"""tct: type-constrained tokenization for JSON documents that follow a JSON Schema.

From schema to tokens, a file a step:

    schema.py     JSON Schema -> formulas (formula.py) over assertions (assertions.py)
    reach.py      which goals a value can meet together: the analysis that rules out dead ends
    text.py       strings: patterns (regex.py) as automata over bytes
    machine.py    the type machine: places, and what may come at each
    codec.py      documents <-> base symbols (symbols.py, numbers.py)
    bpe.py        base symbols <-> tokens
    tokenizer.py  all of it behind one class, and the artifact
    state.py      half-read documents, symbol by symbol; closing.py the shortest way to finish them
    matcher.py    which tokens may come next
"""

from tct.errors import SchemaValidationError, UnsupportedSchemaError
from tct.matcher import Matcher
from tct.tokenizer import CompiledSchema, Tokenizer, compile_json_schema

__all__ = [
    "CompiledSchema",
    "Matcher",
    "SchemaValidationError",
    "Tokenizer",
    "UnsupportedSchemaError",
    "compile_json_schema",
]
