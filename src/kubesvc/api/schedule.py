"""When a schedule is due: the five fields of cron, @daily and the like, and @every with a duration.

The grammar, its errors and its times are those of robfig/cron v3, which the CronJobs of Kubernetes are read by, and by
which people know theirs. It is this module's own because libraries of that kind follow Debian's cron: they take other
texts (Sunday 7, a sixth field, L and #), and move what falls into an hour that a clock change skips or repeats.

    minute 0-59 | hour 0-23 | day of month 1-31 | month 1-12, jan | day of week 0-6, sun
    field = range {"," range}      range = ("*" | "?" | value ["-" value]) ["/" step]

A time is due when its wall clock shows it. Where both days are restricted, one of the two is enough. So nothing is due
in a skipped hour, and what is due in a repeated one is due twice. A time zone's rules are read with `zone`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache

from kubesvc.api.meta import Struct

_YEARS = 5  # beyond that many nothing is looked for
_MINUTE = timedelta(minutes=1)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

# each field -> its smallest value, its largest, and the names of values
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    (0, 6, {name: number for number, name in enumerate(_DAYS)}),
)
_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = "@every "
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}  # seconds
_LONGEST = 2**63 / 1e9  # seconds
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")


class Cron(Struct, frozen=True):
    """Values at which each field holds. `either`: both days are restricted, so one of the two is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Sunday
    either: bool

    def after(self, moment: datetime, place: tzinfo) -> datetime | None:
        """The first time later than `moment` at which clocks in `place` show what is asked for, in UTC; None if there
        is none within five years. Both are whole hours and minutes apart from UTC, as every place is today."""
        if not (self.minutes and self.hours):  # a list of nothing but commas
            return None
        at = moment.astimezone(UTC).replace(second=0, microsecond=0) + _MINUTE
        last = moment.astimezone(place).year + _YEARS
        while (wall := at.astimezone(place)).year <= last:
            if wall.month not in self.months:
                following = date(wall.year + wall.month // 12, wall.month % 12 + 1, 1)
                at = datetime(following.year, following.month, 1, tzinfo=place).astimezone(UTC)
            elif not self._holds_on(wall):
                tomorrow = wall.date() + timedelta(days=1)
                at = datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=place).astimezone(UTC)
            elif wall.hour not in self.hours:
                at += (60 - wall.minute) * _MINUTE
            elif wall.minute not in self.minutes:
                at += _MINUTE
            else:
                return at
        return None

    def latest(self, since: datetime, now: datetime, place: tzinfo) -> datetime | None:
        """The last time later than `since` that isn't later than `now`."""
        span, found = _MINUTE, None
        while found is None:
            start = max(since, now - span)
            found = self.after(start, place)
            if found is None or found > now:
                if start == since:
                    return None
                found, span = None, span * 2
        while (following := self.after(found, place)) is not None and following <= now:
            found = following
        return found

    def _holds_on(self, wall: datetime) -> bool:
        day, weekday = wall.day in self.days, wall.isoweekday() % 7 in self.weekdays
        return day or weekday if self.either else day and weekday


class Every(Struct, frozen=True):
    """Always so long after the time before."""

    seconds: int

    def after(self, moment: datetime, place: tzinfo) -> datetime:
        return moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=self.seconds)

    def latest(self, since: datetime, now: datetime, place: tzinfo) -> datetime | None:
        passed = int((now - since).total_seconds() // self.seconds)
        return since.astimezone(UTC) + timedelta(seconds=passed * self.seconds) if passed > 0 else None


Schedule = Cron | Every


@lru_cache(maxsize=1024)
def parse(text: str) -> Schedule:
    """The schedule that `text` describes. Raises ValueError, which says what is wrong with it."""
    if text.startswith(_EVERY):
        try:
            return Every(seconds=max(1, int(_seconds(text.removeprefix(_EVERY)))))
        except ValueError as error:
            raise ValueError(f"failed to parse duration {text}: {error}") from None
    if text.startswith("@"):
        if text not in _DESCRIPTORS:
            raise ValueError(f"unrecognized descriptor: {text}")
        text = _DESCRIPTORS[text]
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    found = [_field(field, *bounds) for field, bounds in zip(fields, _FIELDS, strict=True)]
    values = [frozenset(v for values, _ in ranges for v in values) for ranges in found]
    whole = [any(star for _, star in ranges) for ranges in found]
    minutes, hours, days, months, weekdays = values
    return Cron(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=weekdays,
        either=not whole[2] and not whole[4],
    )


def _field(text: str, low: int, high: int, names: dict[str, int]) -> list[tuple[range, bool]]:
    return [_range(part, low, high, names) for part in text.split(",") if part]


def _range(text: str, low: int, high: int, names: dict[str, int]) -> tuple[range, bool]:
    """Its values, and whether it is a star that leaves nothing out."""
    bounds, *steps = text.split("/")
    first, *more = bounds.split("-")
    star = first in ("*", "?")
    start, end = low, high
    if not star:
        start = end = _value(first, names)
        if len(more) > 1:
            raise ValueError(f"too many hyphens: {text}")
        if more:
            end = _value(more[0], names)
    if len(steps) > 1:
        raise ValueError(f"too many slashes: {text}")
    step = _value(steps[0], {}) if steps else 1
    if steps and not more:
        end = high
    if start < low:
        raise ValueError(f"beginning of range ({start}) below minimum ({low}): {text}")
    if end > high:
        raise ValueError(f"end of range ({end}) above maximum ({high}): {text}")
    if start > end:
        raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {text}")
    return range(start, end + 1, step), star and step == 1


def _value(text: str, names: dict[str, int]) -> int:
    if (named := names.get(text.lower())) is not None:
        return named
    if not re.fullmatch(r"\+?[0-9]+", text, re.ASCII):
        raise ValueError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _seconds(text: str) -> float:
    """A duration as Go writes them: 5m, 1h30m, 1.5h; 0 has no unit."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    total = 0.0
    for part in _parts(rest, text):
        amount, unit = part.groups()
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += float(amount) * _UNITS[unit]
    if total > _LONGEST:
        raise ValueError(f'time: invalid duration "{text}"')
    return round(-total if text.startswith("-") else total, 9)


def _parts(rest: str, text: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(rest) or not rest:
        part = _PART.match(rest, at)
        if part is None:
            raise ValueError(f'time: invalid duration "{text}"')
        yield part
        at = part.end()


def zone(name: str) -> tzinfo:
    """The place whose clocks are meant; "" is UTC. Raises ValueError when there is none of that name."""
    if name in ("", "UTC"):
        return UTC
    from zoneinfo import ZoneInfo  # slow to import, and few ask for it

    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ValueError(f"unknown time zone {name}") from None
