"""What an unquoted word of YAML means, by the core schema of YAML 1.2: ``no`` and ``1:30`` are texts, ``012`` is 12.

The rules are those of section 10.3.2 of the specification, except that a number must be one that JSON has.
"""

import re
from typing import Final

SMALLEST_INTEGER: Final = -(2**63)
LARGEST_INTEGER: Final = 2**64 - 1

_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER_STARTS: Final = frozenset("+-.0123456789")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class NotJSONScalar(ValueError):
    """The word is a number of YAML that JSON does not have; the message says which kind."""


def read_scalar(text: str) -> bool | int | float | str | None:
    """Give the value of an unquoted scalar.

    Raises:
        NotJSON: an infinity, not a number, an integer beyond 64 bits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _DECIMAL.fullmatch(text):
        return _bounded(text, 10)
    if _OCTAL.fullmatch(text):
        return _bounded(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return _bounded(text[2:], 16)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise NotJSONScalar("is larger than a 64-bit floating-point number can be")
        return value
    if _NO_NUMBER.fullmatch(text):
        raise NotJSONScalar("is not a number that JSON has")
    return text


def _bounded(digits: str, base: int) -> int:
    # The length is looked at first because Python refuses to read thousands of decimal digits.
    significant = digits.lstrip("+-").lstrip("0") or "0"
    if len(significant) <= 22:
        value = int(significant, base) * (-1 if digits.startswith("-") else 1)
        if SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            return value
    raise NotJSONScalar("does not fit into 64 bits")
