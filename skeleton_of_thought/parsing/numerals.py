"""The values of numbers in words, in Roman numerals and in Chinese ones."""

from __future__ import annotations

import re

from skeleton_of_thought.parsing.signs import COUNT, FORMAL

__all__ = ["numeral_value", "roman_value"]


def numeral_value(digits: str) -> int:
    """The value of a number written as digits of any script, a CJK numeral up to 99 or an English word."""
    if digits.isdecimal():
        return int(digits)
    if word := COUNT.get(digits.lower()):
        return word
    if digits.isascii():
        return roman_value(digits)
    tens, ten, ones = digits.translate(FORMAL).partition("十")
    signs = "一二三四五六七八九"
    unit = signs.find((ones or tens)[-1:]) + 1 if (ones or not ten) else 0
    return unit if not ten else (signs.find(tens[-1:]) + 1 if tens else 1) * 10 + unit


def roman_value(word: str) -> int:
    """The value of a Roman numeral below 40, or 0 for any other word."""
    found = re.fullmatch(r"(X{0,3})(IX|IV|V?I{0,3})", word, re.IGNORECASE)
    if not found:
        return 0
    ones = {"IX": 9, "IV": 4}.get(found[2].upper())
    if ones is None:
        ones = len(found[2]) + (4 if found[2][:1].upper() == "V" else 0)
    return 10 * len(found[1]) + ones
