"""Any history of a return, delivered in any order, late and twice: what is told is what the history in order tells."""

from collections.abc import Sequence
from itertools import count, pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loop_attentive.source import RETURN_STATUS
from tests.floor import HOUR, T0, Event, Floor

CREATED, UPDATED = "Loop Return Created", "Loop Return Status Updated"
STATES = st.sampled_from(["open", "closed", "cancelled", "expired", "review", " Closed ", "CANCELLED"])
HISTORIES = st.lists(STATES, min_size=1, max_size=6)
DELIVERIES = st.lists(st.integers(0, 5), min_size=1, max_size=8)
USUAL = settings(
    deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

_numbers = count(1)
_hours = count(1)


def mapped(state: str) -> str:
    folded = state.strip().casefold()
    return RETURN_STATUS.get(folded, folded)


def told(floor: Floor, history: Sequence[str], batches: Sequence[Sequence[int]]) -> list[Event]:
    """Lands versions of one return, batch by batch with a look after each; its events, oldest first.

    Every version stays in the warehouse as a row of its own, as with a connector that only appends.
    """
    number, began = str(next(_numbers)), T0 + next(_hours) * HOUR
    new: list[Event] = []
    for batch in batches:
        at = T0 + next(_hours) * HOUR
        for version in batch:
            row = (number, history[version], began, began + version * HOUR / 60, at)
            floor.conn.execute("INSERT INTO loop.returns (return_id, state, customer_phone, created_at, updated_at, "
                               "synced_at) VALUES (%s, %s, '+14155552671', %s, %s, %s)", row)  # fmt: skip
        new += [event for event in floor.run(at, CREATED, UPDATED) if event.return_id == number]
    return new


def statuses(events: Sequence[Event]) -> list[str]:
    """What the customer was told, in the order of the looks."""
    return [event.properties["returnStatus"] for event in sorted(events, key=lambda event: event.detected_at)]


def append_only(floor: Floor) -> Floor:
    floor.conn.execute("ALTER TABLE loop.returns DROP CONSTRAINT IF EXISTS returns_return_id_key")
    if floor.one("SELECT count(*) FROM shop") == (0,):
        floor.start(T0)
    return floor


@USUAL
@given(history=HISTORIES, order=DELIVERIES)
def test_late_twice_and_out_of_order_nothing_is_made_up(floor: Floor, history: list[str], order: list[int]) -> None:
    """One version at a time, some never, some again."""
    delivered = [version % len(history) for version in order]
    said = statuses(told(append_only(floor), history, [[version] for version in delivered]))
    assert said[-1] == mapped(history[max(delivered)]), "the last state is told"
    assert all(before != after for before, after in pairwise(said)), "nothing is told twice in a row"
    assert set(said) <= set(map(mapped, history))
    assert len(said) <= 1 + sum(later > max(delivered[:place]) for place, later in enumerate(delivered) if place)


@USUAL
@given(history=HISTORIES, data=st.data())
def test_what_comes_before_the_look_may_come_in_any_order(
    floor: Floor, history: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(history) - 1))))) if len(history) > 1 else []
    edges = [0, *cuts, len(history)]
    batches = [list(range(start, end)) for start, end in pairwise(edges) if start < end]
    shuffled = [[*data.draw(st.permutations(batch)), batch[0]] for batch in batches]  # and one of them twice
    floor = append_only(floor)
    assert statuses(told(floor, history, shuffled)) == statuses(told(floor, history, batches))
