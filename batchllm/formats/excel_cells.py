"""The values of a workbook's cells: how prompts and text formats show them, and as which numbers Excel keeps them.

A date is a number of days with a number format. Day 1 is 1900-01-01, and the days from 1900-03-01 on are counted as if
there were a 29 February 1900 (ECMA-376, part 1, 18.17.4.1); Excel knows no earlier date.
"""

import math
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from batchllm.formats.json_text import WrittenNumber

Moment = TypeVar("Moment", datetime, time)

EXACT_INTEGERS = 1 << 53
"""Up to here a cell, which is a binary64 number, holds every integer."""

_ODS_DURATION = re.compile(r"(-?)PT(\d{1,6})H(\d{1,2})M(\d{1,2}(?:\.\d+)?)S")
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1899, 12, 31)
_MARCH_1900 = datetime(1900, 3, 1)
_MIDNIGHT = time()


def whole(value: Any) -> Any:
    """Returns a number without a fraction as an integer, an empty text as ``None``, infinity as text."""
    if type(value) is float:
        if value.is_integer() and abs(value) <= EXACT_INTEGERS:
            return int(value)
        if math.isinf(value):
            return str(value)
    elif value == "" and type(value) is str:
        return None
    return value


def ods_duration(value: Any) -> Any:
    """Returns a duration of OpenDocument (``PT30H15M00S``), which its reader takes for text; all else as it is."""
    found = _ODS_DURATION.fullmatch(value) if type(value) is str else None
    if found is None:
        return value
    length = timedelta(hours=int(found[2]), minutes=int(found[3]), seconds=float(found[4]))
    return -length if found[1] else length


def shown(value: Any) -> Any:
    """Returns a cell's value for prompts, CSV and JSON: dates and times are ISO 8601, durations ``30:15:00``."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    return value


def _duration(value: timedelta) -> str:
    sign = "-" if value < timedelta() else ""
    seconds, fraction = divmod(abs(value), _SECOND)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    tail = f".{fraction.microseconds:06d}".rstrip("0") if fraction else ""
    return f"{sign}{hours:02d}:{minute:02d}:{second:02d}{tail}"


def serial(value: Any) -> tuple[float, str] | None:
    """Returns the number and the number format of a date, a time or a duration; ``None`` where Excel has no number.

    Dates and times are cut to milliseconds, which is what spreadsheets read. Rounded, the last moment of a day would be
    the next day, and that of the year 9999 no date at all.
    """
    if isinstance(value, timedelta):
        return value / _DAY, _with_fraction("[h]:mm:ss", value.microseconds)
    if isinstance(value, time):
        if value.tzinfo is not None:
            return None
        value = _to_milliseconds(value)
        since = timedelta(
            hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
        )
        return since / _DAY, _with_fraction("hh:mm:ss", value.microsecond)
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            return None
        value = _to_milliseconds(value)
        number = _days(value)
        return None if number is None else (number, _with_fraction("yyyy-mm-dd hh:mm:ss", value.microsecond))
    if isinstance(value, date):
        number = _days(datetime.combine(value, _MIDNIGHT))
        return None if number is None else (number, "yyyy-mm-dd")
    return None


def _to_milliseconds(value: Moment) -> Moment:
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def _days(value: datetime) -> float | None:
    if value < _EPOCH + _DAY:
        return None
    return (value - _EPOCH + (_DAY if value >= _MARCH_1900 else timedelta())) / _DAY


def _with_fraction(number_format: str, microseconds: int) -> str:
    return f"{number_format}.000" if microseconds else number_format


def exact_number(value: Any) -> float | int | None:
    """Returns the number that a cell holds for a value; ``None`` where it is no number or a cell changes its digits."""
    if type(value) is int:
        return value if abs(value) <= EXACT_INTEGERS else None
    if isinstance(value, WrittenNumber) and "." not in value.text and "e" not in value.text.lower():
        return 0 if value.text == "-0" else None
    if isinstance(value, float | Decimal):
        number = float(value)
        if not number and Decimal(value.text if isinstance(value, WrittenNumber) else value):
            return None  # too small for a cell
        return number if abs(number) < float("inf") else None
    return None


def utf16_length(text: str) -> int:
    """Returns the length of a text as Excel counts it."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) >> 1


def cut_at(text: str, length: int) -> str:
    """Returns the beginning of a text that has at most so many characters as Excel counts them."""
    return text.encode("utf-16-le", "surrogatepass")[: 2 * length].decode("utf-16-le", "ignore")
