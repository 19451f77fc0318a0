"""What a schedule's text means: its grammar with its errors, and its times, clock changes included."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesvc.api.meta import format_time, parse_time
from kubesvc.api.schedule import Cron, Every, Schedule, parse, zone

MINUTE = timedelta(minutes=1)


def times(text: str, since: str, count: int, place: str = "") -> list[str]:
    """The first `count` times after `since`."""
    schedule, at, found = parse(text), parse_time(since), []
    for _ in range(count):
        after = schedule.after(at, zone(place))
        assert after is not None
        at = after
        found.append(format_time(at).removesuffix(":00Z"))
    return found


@pytest.mark.parametrize(
    ("text", "due"),
    [
        pytest.param("* * * * *", ["2026-01-01T00:01", "2026-01-01T00:02"], id="every minute"),
        pytest.param("*/20 * * * *", ["2026-01-01T00:20", "2026-01-01T00:40", "2026-01-01T01:00"], id="steps"),
        pytest.param("50/5 * * * *", ["2026-01-01T00:50", "2026-01-01T00:55", "2026-01-01T01:50"], id="steps from"),
        pytest.param("5-9/3,30 2 * * *", ["2026-01-01T02:05", "2026-01-01T02:08", "2026-01-01T02:30"], id="a list"),
        pytest.param("0 0 * * sat-Sat", ["2026-01-03T00:00", "2026-01-10T00:00"], id="a name"),
        pytest.param("0 0 29 FEB ?", ["2028-02-29T00:00", "2032-02-29T00:00"], id="a leap day"),
        pytest.param("0 0 13 * fri", ["2026-01-02T00:00", "2026-01-09T00:00", "2026-01-13T00:00"], id="either day"),
        pytest.param("0 0 */2 * 1", ["2026-01-03T00:00", "2026-01-05T00:00"], id="a star with a step restricts"),
        pytest.param("0 0 */1 * 1", ["2026-01-05T00:00", "2026-01-12T00:00"], id="one with a step of 1 doesn't"),
        pytest.param("0 0 31 * *", ["2026-01-31T00:00", "2026-03-31T00:00"], id="short months are passed over"),
        pytest.param("*/61 * * * *", ["2026-01-01T01:00", "2026-01-01T02:00"], id="a step beyond the end"),
        pytest.param("@hourly", ["2026-01-01T01:00", "2026-01-01T02:00"], id="hourly"),
        pytest.param("@midnight", ["2026-01-02T00:00", "2026-01-03T00:00"], id="midnight"),
        pytest.param("@weekly", ["2026-01-04T00:00", "2026-01-11T00:00"], id="weekly: Sundays"),
        pytest.param("@monthly", ["2026-02-01T00:00"], id="monthly"),
        pytest.param("@yearly", ["2027-01-01T00:00", "2028-01-01T00:00"], id="yearly"),
        pytest.param("@every 1h30m", ["2026-01-01T01:30", "2026-01-01T03:00"], id="every"),
    ],
)
def test_when_it_is_due(text: str, due: list[str]) -> None:
    assert times(text, "2026-01-01T00:00:00Z", len(due)) == due


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", ", * * * *"])
def test_what_no_calendar_shows_is_never_due(text: str) -> None:
    start = parse_time("2026-01-01T00:00:00Z")
    assert parse(text).after(start, UTC) is None
    assert parse(text).latest(start, start + timedelta(days=4000), UTC) is None


@pytest.mark.parametrize(
    ("text", "since", "place", "due"),
    [
        pytest.param("0 3 * * *", "2026-03-28T00:00:00Z", "Europe/Paris", ["2026-03-28T02:00", "2026-03-29T01:00"],
                     id="the same hour in summer"),
        pytest.param("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Paris", ["2026-03-30T00:30"],
                     id="not in an hour that is skipped"),
        pytest.param("30 2 * * *", "2026-10-24T12:00:00Z", "Europe/Paris",
                     ["2026-10-25T00:30", "2026-10-25T01:30", "2026-10-26T01:30"], id="twice in one that is repeated"),
        pytest.param("0 * * * *", "2026-10-25T00:00:00Z", "Europe/Paris", ["2026-10-25T01:00", "2026-10-25T02:00"],
                     id="hourly all the same"),
        pytest.param("0 0,5 * * *", "2026-04-23T22:00:00Z", "Africa/Cairo", ["2026-04-24T02:00", "2026-04-24T21:00"],
                     id="a day without its midnight"),
    ],
)  # fmt: skip
def test_clock_changes(text: str, since: str, place: str, due: list[str]) -> None:
    assert times(text, since, len(due), place) == due


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
        (" @daily", "expected exactly 5 fields, found 1: [@daily]"),
        ("61 * * * *", "end of range (61) above maximum (59): 61"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("9-5 * * * *", "beginning of range (9) beyond end of range (5): 9-5"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("*/2/3 * * * *", "too many slashes: */2/3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("* * * jan sunday", 'failed to parse int from sunday: strconv.Atoi: parsing "sunday": invalid syntax'),
        ("L * * * *", 'failed to parse int from L: strconv.Atoi: parsing "L": invalid syntax'),
        ("1_0 * * * *", 'failed to parse int from 1_0: strconv.Atoi: parsing "1_0": invalid syntax'),
        ("@Daily", "unrecognized descriptor: @Daily"),
        ("@every5m", "unrecognized descriptor: @every5m"),
        ("@every 5", 'failed to parse duration @every 5: time: missing unit in duration "5"'),
        ("@every 5d", 'failed to parse duration @every 5d: time: unknown unit "d" in duration "5d"'),
        ("@every ", 'failed to parse duration @every : time: invalid duration ""'),
        ("@every soon", 'failed to parse duration @every soon: time: invalid duration "soon"'),
    ],
)
def test_what_is_wrong_is_said_as_upstream_says_it(text: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse(text)
    assert str(refused.value) == why


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h0m30s", 3630), ("1.5h", 5400), ("4.35m", 261), ("1.9s", 1), ("20ms", 1), ("0", 1), ("-5m", 1)],
)
def test_a_duration_is_whole_seconds_and_one_at_least(text: str, seconds: int) -> None:
    assert parse(f"@every {text}") == Every(seconds=seconds)


def test_a_place_has_a_name() -> None:
    assert zone("") is zone("UTC") is UTC
    for name in ("Europe/Pariss", "Europe", "../etc/passwd", "local"):
        with pytest.raises(ValueError, match=f"unknown time zone {name}"):
            zone(name)


def test_zones_are_known_on_a_machine_that_has_none() -> None:
    zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert times("0 3 * * *", "2026-07-01T00:00:00Z", 1, "Europe/Paris") == ["2026-07-01T01:00"]
    finally:
        zoneinfo.reset_tzpath()


# ── against the definition ───────────────────────────────────────────────────────────────────────────────────────────


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    ranges = st.tuples(value, value).map(lambda pair: f"{min(pair)}-{max(pair)}")
    bases = st.one_of(st.just("*"), value.map(str), ranges)
    parts = st.one_of(bases, st.tuples(bases, st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}"))
    return st.lists(parts, min_size=1, max_size=2).map(",".join)


# Sparse, so that what is found first is some days ahead, and close to what the clocks of these places do in those days.
SPARSE = st.tuples(
    fields(0, 59),
    fields(0, 4),
    st.one_of(st.just("*"), fields(1, 31)),
    st.just("*"),
    st.sampled_from(["*", "6", "0,3"]),
).map(" ".join)
CHANGES = [
    ("America/New_York", "2026-03-07T20:00:00Z"),
    ("America/New_York", "2026-10-31T20:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T00:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T00:00:00Z"),
    ("Africa/Cairo", "2026-04-23T12:00:00Z"),
    ("America/Havana", "2026-10-31T20:00:00Z"),
    ("Asia/Kathmandu", "2026-01-01T00:00:00Z"),
    ("", "2028-02-27T00:00:00Z"),
]


def holds(text: str) -> Callable[[datetime], bool]:
    """The definition: every field holds of what the clock shows; of two restricted days, one."""
    bounds = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
    parts = [field.split(",") for field in text.split()]
    minutes, hours, days, months, weekdays = (
        {value for value in range(low, high + 1) if any(_in(part, value, low, high) for part in field)}
        for field, (low, high) in zip(parts, bounds, strict=True)
    )
    free = {"*", "*/1"}.intersection([*parts[2], *parts[4]])

    def holds_at(wall: datetime) -> bool:
        if wall.minute not in minutes or wall.hour not in hours or wall.month not in months:
            return False
        both = wall.day in days, wall.isoweekday() % 7 in weekdays
        return all(both) if free else any(both)

    return holds_at


def _in(part: str, value: int, low: int, high: int) -> bool:
    base, _, step = part.partition("/")
    first, _, last = base.replace("*", f"{low}-{high}").partition("-")
    end = int(last or (high if step else first))
    return int(first) <= value <= end and (value - int(first)) % int(step or 1) == 0


@cache
def clock(place: str, start: str) -> list[tuple[datetime, datetime]]:
    """Each minute of three days, and what clocks show."""
    first, where = parse_time(start), zone(place)
    return [(at := first + number * MINUTE, at.astimezone(where)) for number in range(3 * 1440)]


@given(SPARSE, st.sampled_from(CHANGES), st.integers(0, 2000))
def test_it_is_the_first_minute_at_which_the_clock_shows_it(text: str, change: tuple[str, str], later: int) -> None:
    minutes, held = clock(*change), holds(text)
    start = minutes[later][0]
    found = parse(text).after(start, zone(change[0]))
    first = next((at for at, wall in minutes[later + 1 :] if held(wall)), None)
    if first is not None:
        assert found == first
    else:
        assert found is None or (found > minutes[-1][0] and held(found.astimezone(zone(change[0]))))


@given(SPARSE.map(parse) | st.integers(1, 7200).map(lambda s: Every(seconds=s)), st.integers(0, 20000))
def test_the_latest_is_the_last_one_of_those_that_follow_each_other(schedule: Schedule, passed: int) -> None:
    since = parse_time("2026-01-01T00:00:00Z")
    now, last = since + timedelta(seconds=passed * 17), None
    following = schedule.after(since, UTC)
    while following is not None and following <= now:
        last, following = following, schedule.after(following, UTC)
    assert schedule.latest(since, now, UTC) == last
    assert isinstance(schedule, Cron | Every)
