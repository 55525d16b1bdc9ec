"""Expressions: what the grammar generates parses to its tree, and a slow recogniser agrees on random texts."""

import math
from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tct_github_workflow.rules.expressions import (
    MAX_LENGTH,
    Call,
    Compare,
    Context,
    ExpressionError,
    Filter,
    Index,
    Literal,
    Logical,
    Not,
    Property,
    parse,
)


def parses(text: str) -> bool:
    try:
        parse(text)
    except ExpressionError:
        return False
    return True


# -----------------------------------------------------------------------------
# a recogniser that shares nothing with the parser: it tries all rules at all places

GRAMMAR = {
    "or": ["and", "and || or"],
    "and": ["compare", "compare && and"],
    "compare": ["not", "not == compare", "not != compare", "not < compare", "not <= compare", "not > compare"]
    + ["not >= compare"],
    "not": ["postfix", "! not"],
    "postfix": ["primary", "primary steps"],
    "steps": ["step", "step steps"],
    "step": [". NAME", ". *", "[ or ]"],
    "primary": ["NAME", "NUMBER", "STRING", "( or )", "NAME ( )", "NAME ( list )"],
    "list": ["or", "or , list"],
}
LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
DIGITS = set("0123456789")
ENDS_WORD = set(" \t\r\n()[],.!<>=&|")


def recognise(text: str) -> bool:
    symbols = scan(text)

    @cache
    def ends(symbol: str, start: int) -> frozenset[int]:
        """Return where a symbol that begins at `start` may end."""
        if symbol not in GRAMMAR:
            return frozenset([start + 1] if symbols[start : start + 1] == [symbol] else [])
        found = set()
        for rule in GRAMMAR[symbol]:
            places = {start}
            for part in rule.split():
                places = {end for place in places for end in ends(part, place)}
            found |= places
        return frozenset(found)

    return symbols is not None and len(symbols) in ends("or", 0)


def scan(text: str) -> list[str] | None:
    """Return the symbols of a text, or None if it has others."""
    symbols, at = [], 0
    while at < len(text):
        end, char = at + 1, text[at]
        if char == "'":
            while text[end : end + 1] != "'" or text[end + 1 : end + 2] == "'":
                if end >= len(text):
                    return None
                end += 2 if text[end] == "'" else 1
            end += 1
            symbols.append("STRING")
        elif char in LETTERS or char in DIGITS or char == "-":
            end = word_end(text, at)
            word = text[at:end]
            is_name = char in LETTERS and set(word) <= LETTERS | DIGITS | {"-"}
            if not (is_name or is_number(word)):
                return None
            symbols.append("NAME" if is_name else "NUMBER")
        elif text[at : at + 2] in ("&&", "||", "==", "!=", "<=", ">="):
            end += 1
            symbols.append(text[at:end])
        elif char in "!<>()[].,*":
            symbols.append(char)
        elif char not in " \t\r\n":
            return None
        at = end
    return symbols


def word_end(text: str, at: int) -> int:
    """Return where a name or number ends. A point belongs to a number if a digit follows."""
    is_number = text[at] not in LETTERS
    while at < len(text):
        if text[at] in ENDS_WORD and not (is_number and text[at] == "." and text[at + 1 : at + 2] in DIGITS):
            break
        is_number = is_number and text[at] != "."
        at += 1
    return at


def is_number(word: str) -> bool:
    digits = word.removeprefix("-")
    if digits.startswith("0x") and digits != word:
        return False  # GitHub's parser knows no negative hexadecimal number
    if digits.startswith("0x"):
        digits = digits[2:].lower()
        is_form = bool(digits) and set(digits) <= DIGITS | set("abcdef") and (digits[0] != "0" or digits == "0")
        return is_form and -(2**31) <= int(word, 16) < 2**31
    mantissa, e, exponent = digits.replace("E", "e").partition("e")
    whole, point, fraction = mantissa.partition(".")
    if not is_whole(whole) or point and not is_digits(fraction) or e and not is_whole(exponent.removeprefix("-")):
        return False
    return math.isfinite(float(word)) if point or e else -(2**31) <= int(word) < 2**31


def is_digits(text: str) -> bool:
    return bool(text) and set(text) <= DIGITS


def is_whole(text: str) -> bool:
    return is_digits(text) and (text[0] != "0" or text == "0")


PIECES = (
    """a github.b f( true - 1 0 017 0x1F 0x0F -1 1.5 1e3 1e-3 1E03 2147483648 1e999 's' 'it''s' ' "x" && & || | == =
!= ! < <= > >= ( ) [ ] . .* * , ${ } é _ -a a-""".split()
    + [" ", "\n", "\t", "\u00a0"]
)


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_parser_and_recogniser_agree_on_random_texts(text):
    assert parses(text) == recognise(text)


@settings(max_examples=300)
@given(st.text("a0x1.'e- &|=!<>()[]*,", max_size=10))
def test_parser_and_recogniser_agree_on_random_characters(text):
    assert parses(text) == recognise(text)


def test_parser_and_recogniser_agree_on_all_short_sequences():
    pieces = ["a", "1", "!", "==", "&&", "(", ")", "[", "]", ".", "*", ","]
    for length in range(5):
        for sequence in product(pieces, repeat=length):
            text = " ".join(sequence)
            assert parses(text) == recognise(text), text


# -----------------------------------------------------------------------------
# trees

NAMES = st.sampled_from(["a", "b-c", "_d", "github", "true", "e1"])
CONTEXTS = st.sampled_from(["a", "b-c", "_d", "github"]).map(Context)
LITERALS = st.one_of(
    st.text("ab' \n{}é", max_size=5),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([True, False, None, 0.5, -1.25, 2e-07]),
).map(Literal)
OPERATORS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


def larger(nodes):
    return st.one_of(
        st.builds(Property, nodes, NAMES),
        st.builds(Filter, nodes),
        st.builds(Index, nodes, nodes),
        st.builds(Call, NAMES, st.lists(nodes, max_size=3).map(tuple)),
        st.builds(Not, nodes),
        st.builds(Compare, OPERATORS, nodes, nodes),
        st.builds(Logical, st.sampled_from(["&&", "||"]), nodes, nodes),
    )


TREES = st.recursive(CONTEXTS | LITERALS, larger, max_leaves=12)
OR, AND, COMPARE, NOT, POSTFIX = range(5)  # how strongly an expression binds


def text_of(node, least: int = OR, blank: str = " ") -> str:
    """Return the text of a tree, in brackets if it binds more weakly than `least`."""

    def below(part, least=OR):
        return text_of(part, least, blank)

    level = POSTFIX
    match node:
        case Literal(str(value)):
            text = "'" + value.replace("'", "''") + "'"
        case Literal(bool() | None as value):
            text = {True: "true", False: "false", None: "null"}[value]
        case Literal(value):
            text = str(value).replace("e-07", "e-7")
        case Context(name):
            text = name
        case Property(of, name):
            text = f"{below(of, POSTFIX)}{blank}.{blank}{name}"
        case Filter(of):
            text = f"{below(of, POSTFIX)}{blank}.{blank}*"
        case Index(of, index):
            text = f"{below(of, POSTFIX)}{blank}[{below(index)}]"
        case Call(function, arguments):
            text = f"{function}{blank}({blank}{f'{blank},{blank}'.join(map(below, arguments))})"
        case Not(of):
            text, level = f"!{blank}{below(of, NOT)}", NOT
        case Compare(operator, left, right):
            text, level = f"{below(left, NOT)}{blank}{operator}{blank}{below(right, COMPARE)}", COMPARE
        case Logical(operator, left, right):
            level = AND if operator == "&&" else OR
            text = f"{below(left, level + 1)}{blank}{operator}{blank}{below(right, level)}"
    return text if level >= least else f"({text})"


@given(TREES, st.sampled_from(["", " ", "\n", "\t "]))
def test_the_text_of_a_tree_parses_to_the_tree(tree, blank):
    text = text_of(tree, blank=blank)
    assert parse(text) == tree and recognise(text)


@settings(max_examples=500)
@given(TREES.map(text_of), st.data())
def test_parser_and_recogniser_agree_on_damaged_expressions(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 3)))
    text = text[:start] + data.draw(st.sampled_from(["", *PIECES])) + text[end:]
    assert parses(text) == recognise(text)


# -----------------------------------------------------------------------------
# cases


@pytest.mark.parametrize("text", ["0", "-0", "0x0", "0xff", "-1.50", "1e3", "1E-3", "0e0", "2147483647", "-2147483648"])
def test_numbers(text):
    assert parse(text).value == (int(text, 16) if "x" in text else float(text))


@pytest.mark.parametrize(
    "text",
    ["+1", ".5", "1.", "017", "00", "0x", "0x0F", "0X1", "0b1", "1e+3", "1e03", "1e400", "--1", "1a", "1_0", "NaN "]
    + ["2147483648", "-2147483649", "0x80000000"],
)
def test_what_is_not_a_number(text):
    assert not parses(text) or isinstance(parse(text), Context)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "a.", "a.1", "a..b", "a[]", "a[*]", "f(", "f(,)", "f(a,)", "(a", "a)", "a ==", "&& a", "a = b"]
    + ["a & b", "!", '"a"', "'a", "'a'''b'c", "a + b", "a ? b : c", "-a", "${{ a }}", "a\u00a0== b"],
)
def test_what_is_not_an_expression(text):
    assert not parses(text)


def test_a_property_is_a_level_of_nesting():
    """GitHub's parser says so. It has 50 levels, but writes `success() && (...)` around most conditions."""
    parse("!" * 46 + "a.b"), parse("!" * 46 + "a['b']"), parse("!" * 47 + "a")
    for text in "!" * 47 + "a.b", "!" * 47 + "a['b']", "!" * 46 + "a.b.c":
        with pytest.raises(ExpressionError, match="nested deeper than 48 levels"):
            parse(text)


def test_operators_bind_as_github_says():
    a, b, c = map(Context, "abc")
    assert parse("a || b && c") == Logical("||", a, Logical("&&", b, c))
    assert parse("!a == b") == Compare("==", Not(a), b)
    assert parse("a.b.*['C'] ") == Index(Filter(Property(a, "b")), Literal("C"))
    assert parse("a < b == c") == Compare("<", a, Compare("==", b, c))
    assert parse("F(A.B)") == Call("f", (Property(a, "b"),))


@pytest.mark.parametrize("text", ["(" * 5000 + "a" + ")" * 5000, "!" * 5000 + "a", "a" + ".b" * 5000, "a[" * 5000])
def test_deep_expressions_are_refused(text):
    with pytest.raises(ExpressionError, match="nested deeper than 48 levels"):
        parse(text)


def test_a_long_chain_is_not_deep():
    assert parses(" && ".join(["a"] * 1000)) and not parses("a" * (MAX_LENGTH + 1)) and parses("a" * MAX_LENGTH)
