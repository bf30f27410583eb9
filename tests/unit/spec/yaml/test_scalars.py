"""Unquoted scalars have the values of YAML 1.2's core schema."""

import pytest

from flowrun.spec.yaml.scalars import NotJSONScalar, read_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("nULL", "nULL"),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("0", 0),
        ("-0", 0),
        ("+7", 7),
        ("012", 12),
        ("0" * 5000 + "12", 12),
        ("0o17", 15),
        ("0o18", "0o18"),
        ("0x1F", 31),
        ("-0x1F", "-0x1F"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1:30", "1:30"),
        ("2026-01-31", "2026-01-31"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("-1.5E-3", -0.0015),
        (".", "."),
        ("1.0.0", "1.0.0"),
        ("-", "-"),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551615", 2**64 - 1),
        ("a", "a"),
        ("é", "é"),
        ("١٢", "١٢"),
    ],
)
def test_a_word_means_what_yaml_1_2_says(text: str, value: object) -> None:
    assert (type(read_scalar(text)), read_scalar(text)) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (".inf", "is not a number that JSON has"),
        ("-.INF", "is not a number that JSON has"),
        (".nan", "is not a number that JSON has"),
        ("1e999", "is larger than a 64-bit floating-point number can be"),
        ("18446744073709551616", "does not fit into 64 bits"),
        ("-9223372036854775809", "does not fit into 64 bits"),
        ("9" * 5000, "does not fit into 64 bits"),
        ("0x1" + "0" * 5000, "does not fit into 64 bits"),
        ("0o7777777777777777777777", "does not fit into 64 bits"),
    ],
    ids=lambda text: text[:24],
)
def test_numbers_that_json_does_not_have_are_refused(text: str, reason: str) -> None:
    with pytest.raises(NotJSONScalar, match=f"^{reason}$"):
        read_scalar(text)
