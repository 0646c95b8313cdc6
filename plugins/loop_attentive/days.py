"""Days as a form names them: whole ones, by a shop's clock."""

from datetime import UTC, date, datetime, time, timedelta, tzinfo

from loop_attentive.errors import NeedsMending

ONE_DAY = timedelta(days=1)


def check(first: date | None, last: date | None) -> None:
    """Raises NeedsMending for a range that makes no sense, in one line. None: it has no beginning, or no end."""
    for day in (first, last):
        if day and not date.min + 2 * ONE_DAY <= day <= date.max - 2 * ONE_DAY:
            raise NeedsMending(f"The range of dates goes to {day}, where calendars end: name another day.")
    if first and last and last < first:
        raise NeedsMending("The range of dates ends before it begins: exchange from and to.")


def midnight(day: date, zone: tzinfo) -> datetime:
    """When a day begins, UTC."""
    return datetime.combine(day, time(tzinfo=zone)).astimezone(UTC)
