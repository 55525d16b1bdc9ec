"""tct: type-constrained tokenization for JSON documents that follow a JSON Schema.

From schema to tokens, a file a step:

    schema.py     JSON Schema -> formulas (formula.py) over assertions (assertions.py)
    reach.py      which goals a value can meet together: the analysis that rules out dead ends
    text.py       strings: patterns (regex.py) as automata over bytes
    machine.py    the type machine: places, and what may come at each
    codec.py      documents <-> base symbols (symbols.py, numbers.py)
    bpe.py        base symbols <-> tokens
    tokenizer.py  all of it behind one class, and the artifact
    prefix.py     documents cut anywhere (partial_json.py), for completion
    state.py      half-read documents, symbol by symbol; closing.py a short way to finish them
    masks.py      which tokens a state allows; path_class.py numbers for states
    matcher.py    all of that behind one class
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
