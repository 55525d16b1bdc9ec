"""Values of `format` as ECMA-262 patterns.

>>> from tct.regex import compile_pattern
>>> [compile_pattern(PATTERNS["date"]).matches(text) for text in ("2024-02-29", "2023-02-29")]
[True, False]
"""

# RFC 3339, section 5.6. A leap second ends a day in UTC; only Z and an offset of zero can say so here.
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = f"(?:[0-9]{{4}}-{_DAY}|{_LEAP_YEAR}-02-29)"
_HOUR_AND_MINUTE = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = (
    rf"(?:{_HOUR_AND_MINUTE}:[0-5][0-9](?:\.[0-9]+)?(?:[Zz]|[+-]{_HOUR_AND_MINUTE})"
    r"|23:59:60(?:\.[0-9]+)?(?:[Zz]|[+-]00:00))"
)

# RFC 3986, appendix A
_BYTE = "(?:[0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_GROUP = "[0-9A-Fa-f]{1,4}"
_LAST = f"(?:{_GROUP}:{_GROUP}|{_IPV4})"
_IPV6 = "|".join([
    f"(?:{_GROUP}:){{6}}{_LAST}",
    *(f"(?:(?:{_GROUP}:){{0,{n}}}{_GROUP})?::(?:{_GROUP}:){{{4 - n}}}{_LAST}" for n in range(5)),
    f"::(?:{_GROUP}:){{5}}{_LAST}",
    f"(?:(?:{_GROUP}:){{0,5}}{_GROUP})?::{_GROUP}",
    f"(?:(?:{_GROUP}:){{0,6}}{_GROUP})?::",
])  # fmt: skip
_NAME = r"A-Za-z0-9._~!$&'()*+,;=\-"  # unreserved and sub-delims
_ESCAPED = "%[0-9A-Fa-f]{2}"
_CHAR, _CHAR_NO_COLON = f"(?:[{_NAME}:@]|{_ESCAPED})", f"(?:[{_NAME}@]|{_ESCAPED})"
_HOST = rf"(?:\[(?:{_IPV6}|[vV][0-9A-Fa-f]+\.[{_NAME}:]+)\]|(?:[{_NAME}]|{_ESCAPED})*)"
_AUTHORITY = f"(?:(?:[{_NAME}:]|{_ESCAPED})*@)?{_HOST}(?::[0-9]*)?"
_PATHS = f"//{_AUTHORITY}(?:/{_CHAR}*)*|/(?:{_CHAR}+(?:/{_CHAR}*)*)?"
_QUERY_AND_FRAGMENT = rf"(?:\?(?:{_CHAR}|[/?])*)?(?:#(?:{_CHAR}|[/?])*)?"
_URI = rf"[A-Za-z][A-Za-z0-9+.\-]*:(?:{_PATHS}|{_CHAR}+(?:/{_CHAR}*)*)?{_QUERY_AND_FRAGMENT}"
_RELATIVE = rf"(?:{_PATHS}|{_CHAR_NO_COLON}+(?:/{_CHAR}*)*)?{_QUERY_AND_FRAGMENT}"

# RFC 1034, section 3.5, and RFC 5891, section 4.2.3.1: no label has -- in its third and fourth place. Labels such as
# xn--fa-hia, which encode other letters, are an exception that is not made here: to check them they must be decoded.
_LETTER, _OR_HYPHEN = "[A-Za-z0-9]", "[A-Za-z0-9-]"
_SHORT = f"{_LETTER}|{_OR_HYPHEN}{_LETTER}|{_OR_HYPHEN}(?:{_LETTER}|-){_LETTER}"  # what follows the first letter
_LONG = f"{_OR_HYPHEN}(?:{_LETTER}{_OR_HYPHEN}|-{_LETTER}){_OR_HYPHEN}{{0,58}}{_LETTER}"
_LABEL = f"{_LETTER}(?:{_SHORT}|{_LONG})?"
_HOSTNAME = rf"{_LABEL}(?:\.{_LABEL})*"
_ATOM = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+"  # RFC 5322, section 3.2.3

_POINTER = "(?:/(?:[^/~]|~[01])*)*"  # RFC 6901

PATTERNS = {
    name: f"^(?:{pattern})$"
    for name, pattern in {
        "date": _DATE,
        "time": _TIME,
        "date-time": f"{_DATE}[Tt]{_TIME}",
        "ipv4": _IPV4,
        "ipv6": _IPV6,
        "uri": _URI,
        "uri-reference": f"{_URI}|{_RELATIVE}",
        "json-pointer": _POINTER,
        "hostname": _HOSTNAME,
        "email": rf"{_ATOM}(?:\.{_ATOM})*@(?:{_HOSTNAME}|\[(?:{_IPV4}|IPv6:(?:{_IPV6}))\])",
        "relative-json-pointer": f"(?:0|[1-9][0-9]*)(?:#|{_POINTER})",
    }.items()
}
# What else holds of a format: the most characters, and another pattern.
MAX_LENGTHS = {"hostname": 253, "email": 254}
FURTHER_PATTERNS = {"email": "^[^@]{1,64}@"}
# These assert nothing here. `regex` and the internationalised names are no regular languages.
NOT_ENFORCED = frozenset(["regex", "idn-email", "idn-hostname", "iri", "iri-reference", "uri-template"])
