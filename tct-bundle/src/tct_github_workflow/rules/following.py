"""Carry a RulesState along with the state of the schema, symbol by symbol."""

import json
from typing import Any

from tct.state import ArrayFrame, KeyFrame, NumberFrame, ObjectFrame, State, TextFrame
from tct.symbols import (
    ARRAY,
    END_ARRAY,
    END_NUMBER,
    END_OBJECT,
    END_STRING,
    FALSE,
    FIRST_NAME,
    NULL,
    NUMBER,
    OBJECT,
    TRUE,
    SymbolTable,
)

from .state import RulesState, number_of

LITERALS = {TRUE: True, FALSE: False, NULL: None}
OPENINGS = {NUMBER: "number", OBJECT: "object", ARRAY: "array"}
IMPLIED = {ObjectFrame: "object", ArrayFrame: "array", NumberFrame: "number"}


def write_text(rules: RulesState, before: State, piece: bytes, after: State, ends: bool) -> RulesState:
    """Return the state after the bytes of a text, a key or a number. Raises Fault.

    `before` and `after` are the states of the schema. If the text ends with the next symbol, only that is checked.
    """
    rules, frame = _enter_item(rules, before)
    if not isinstance(frame, (TextFrame, KeyFrame, NumberFrame)):
        rules = rules.begin_key() if isinstance(frame, ObjectFrame) else rules.begin("string")
    return rules.with_text(piece) if ends else rules.add_text(piece, after)


def write_symbol(rules: RulesState, before: State, symbol: int, after: State, symbols: SymbolTable) -> RulesState:
    """Return the state after a symbol that is not a byte. Raises Fault."""
    if symbol == END_ARRAY:
        return rules.end_container()
    rules, frame = _enter_item(rules, before)
    if symbol == END_OBJECT:
        return rules.end_container()
    if symbol == END_NUMBER:
        return rules.end_scalar(number_of(rules.text))
    if isinstance(frame, (ObjectFrame, KeyFrame)):
        return implied(rules.end_key(rules.text if symbol == END_STRING else symbols.name_of(symbol)), after)
    if symbol in OPENINGS:
        rules = rules.begin(OPENINGS[symbol])
        if symbol == NUMBER and rules.ending(after) is None:
            rules.refuse()
        return rules
    if symbol == END_STRING:
        return (rules if isinstance(frame, TextFrame) else rules.begin("string")).end_scalar(rules.text)
    value = _value_of(symbol, symbols)
    kind = "string" if isinstance(value, str) else ""
    return (rules.begin(kind) if kind else rules.begin_literal()).end_scalar(value)


def _enter_item(rules: RulesState, before: State):
    """Begin the next item if the schema is within an array. Return the rules, and the frame of the schema."""
    if not isinstance(before.frame, ArrayFrame):
        return rules, before.frame
    item = before.frame.enter_item(before.outer)
    return implied(rules, item), item.frame


def implied(rules: RulesState, after: State) -> RulesState:
    """Begin a value whose type the schema implies, so that it has no symbol."""
    kind = IMPLIED.get(type(after.frame))
    return rules.begin(kind) if kind else rules


def _value_of(symbol: int, symbols: SymbolTable) -> Any:
    """Return the value that a symbol stands for."""
    if symbol in LITERALS:
        return LITERALS[symbol]
    return json.loads(symbols.literals[symbol - FIRST_NAME - len(symbols.names)])
