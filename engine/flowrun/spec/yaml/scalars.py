"""Values of unquoted scalars by the core schema of YAML 1.2: ``no`` and ``1:30`` are texts, ``012`` is 12.

Source: section 10.3.2 of the YAML 1.2 specification. One difference: a number must exist in JSON.
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
_INFINITY_OR_NAN: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class NotJSONScalar(ValueError):
    """An error of a YAML number that JSON does not have. The message says which kind of number it is."""


def read_scalar(text: str) -> bool | int | float | str | None:
    """Return the value of an unquoted scalar.

    Raises:
        NotJSONScalar: the scalar is an infinity, not a number, a float beyond 64 bits or an integer beyond 64 bits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _DECIMAL.fullmatch(text):
        return _integer_of_64_bits(text, 10)
    if _OCTAL.fullmatch(text):
        return _integer_of_64_bits(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return _integer_of_64_bits(text[2:], 16)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise NotJSONScalar("is larger than a 64-bit floating-point number can be")
        return value
    if _INFINITY_OR_NAN.fullmatch(text):
        raise NotJSONScalar("is not a number that JSON has")
    return text


def _integer_of_64_bits(digits: str, base: int) -> int:
    # The length is checked first, because int() rejects strings of thousands of decimal digits.
    significant = digits.lstrip("+-").lstrip("0") or "0"
    if len(significant) <= 22:
        value = int(significant, base) * (-1 if digits.startswith("-") else 1)
        if SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            return value
    raise NotJSONScalar("does not fit into 64 bits")
