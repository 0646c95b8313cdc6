"""Tests that are told in a house where others play at the same time."""

from collections.abc import Callable
from concurrent.futures import Future

from tests.e2e.house import House


def story(play: Callable[[House], None]) -> Callable[[dict[str, Future[None]]], None]:
    """Makes a test of a function that takes the house and asserts; it keeps to its own merchants."""

    def test(stories: dict[str, Future[None]]) -> None:
        stories[play.__name__].result()

    test.__name__, test.__doc__ = play.__name__, play.__doc__
    test.play = play  # type: ignore[attr-defined]
    return test
