"""Turns: who is served next, whatever waits in whose line."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from mqtt_im.store.threads.turns import SERVER, Turns


class Work(NamedTuple):
    user: str
    number: int
    cost: float = 1.0


def turns_of(*jobs: Work) -> Turns[Work]:
    turns = Turns[Work](lambda job: job.user)
    for job in jobs:
        turns.put(job)
    return turns


def served(turns: Turns[Work], count: int = 1_000) -> list[Work]:
    done: list[Work] = []
    while len(done) < count and (job := turns.take()) is not None:
        turns.charge(job.user, job.cost)
        done.append(job)
    return done


def test_one_job_waits_for_one_of_somebody_elses_hundred() -> None:
    turns = turns_of(*(Work("greedy", number) for number in range(100)), Work("bob", 0))
    assert [job.user for job in served(turns)].index("bob") == 1


def test_many_users_take_turns_and_each_keeps_the_order_of_its_own() -> None:
    turns = turns_of(*(Work(user, number) for user in "abc" for number in range(3)))
    assert [(job.user, job.number) for job in served(turns)] == [(user, number) for number in range(3) for user in "abc"]


def test_what_is_heavy_counts_as_what_it_costs() -> None:
    """Not one for one: of two who always have work, each has half of what there is to be had."""
    turns = turns_of(*(Work("heavy", number, 50.0) for number in range(10)), *(Work("light", number) for number in range(300)))
    cost: dict[str, float] = {"heavy": 0.0, "light": 0.0}
    for job in served(turns, 204):
        cost[job.user] += job.cost
    assert abs(cost["heavy"] - cost["light"]) <= 50.0


def test_what_was_had_counts_for_who_comes_back_while_others_wait() -> None:
    turns = turns_of(Work("heavy", 0, 50.0), *(Work("light", number) for number in range(100)))
    assert served(turns, 1)[0].user == "heavy"
    turns.put(Work("heavy", 1, 50.0))
    assert [job.user for job in served(turns, 51)].index("heavy") >= 49


def test_nobody_saves_up_turns_by_being_away() -> None:
    turns = turns_of(*(Work("busy", number) for number in range(1_000)))
    served(turns, 500)
    for number in range(100):
        turns.put(Work("back", number))
    assert [job.user for job in served(turns, 20)].count("busy") >= 9


def test_who_comes_is_not_behind_what_was_only_looked_at() -> None:
    """Many are taken at once, of which one or two fit, and each of them costs a whole batch."""
    turns = turns_of()
    turns.weigh = lambda job: job.cost
    for number in range(200):
        turns.put(Work(f"heavy{number % 20}", number, 1_000.0))
    for number in range(10):
        taken = [job for _ in range(64) if (job := turns.take()) is not None]
        turns.give_back(taken[1:])
        turns.charge(taken[0].user, taken[0].cost)
        turns.put(Work("light", number))
        job = turns.take()
        assert job is not None and job.user == "light"
        turns.charge(job.user, job.cost)


def test_what_waits_lets_others_pass_and_keeps_its_place() -> None:
    turns = turns_of(Work("heavy", 0), Work("heavy", 1), Work("light", 0), Work("light", 1))

    def waits(job: Work) -> bool:
        return job.user == "heavy"

    assert turns.several(3, waits) == [("light", 0, 1.0), ("light", 1, 1.0)]
    assert len(turns) == 2
    assert [(job.user, job.number) for job in served(turns)] == [("heavy", 0), ("heavy", 1)]


def test_a_line_that_waits_is_looked_at_once_for_all_that_pass_it() -> None:
    turns = turns_of(*(Work(f"heavy{number}", number) for number in range(100)), *(Work("light", number) for number in range(50)))
    looked: list[Work] = []

    def waits(job: Work) -> bool:
        looked.append(job)
        return job.user != "light"

    assert len(turns.several(50, waits)) == 50
    assert len(looked) == 150
    assert len(turns.several(1_000)) == 100


def test_what_is_long_and_overdue_is_taken_before_the_servers_own_jobs() -> None:
    """Which come all the time: it was passed by as many as there were."""
    turns = turns_of(Work(SERVER, 0), Work("ann", 0, 9.0), Work("bob", 0))

    def taken(overdue: bool) -> list[str]:
        return [job.user for job in turns.several(10, long=lambda job: job.cost > 5, overdue=overdue)]

    assert taken(True) == ["ann"]
    assert taken(False) == [SERVER, "bob"]


def test_what_is_long_is_taken_alone_when_there_is_nothing_else_or_it_is_overdue() -> None:
    """What stands behind it is not looked at for nothing, and what is light need not wait for it."""
    turns = turns_of()
    turns.weigh = lambda job: job.cost
    for job in (Work("a", 0, 9.0), Work("b", 0), Work("c", 0), Work("d", 0, 9.0)):
        turns.put(job)

    def long(job: Work) -> bool:
        return job.cost > 5

    assert [job.user for job in turns.several(10, long=long)] == ["b", "c"]
    assert len(turns) == 2
    turns.put(Work("e", 0))
    first = [job.user for job in turns.several(10, long=long, overdue=True)]
    assert len(first) == 1 and first != ["e"], "it is not passed for ever"
    assert [job.user for job in turns.several(10, long=long)] == ["e"]
    second = [job.user for job in turns.several(10, long=long)]
    assert sorted(first + second) == ["a", "d"]
    assert turns.several(10, long=long, overdue=True) == []


def test_a_cost_that_is_known_late_counts_too() -> None:
    turns = turns_of(Work("late", 0), Work("late", 1), Work("bob", 0), Work("bob", 1))
    taken = [turns.take(), turns.take()]
    assert [job.user for job in taken if job] == ["late", "bob"]
    turns.charge("late", 10.0)
    turns.charge("bob", 1.0)
    assert [job.user for job in served(turns)] == ["bob", "late"]


def test_who_has_had_least_is_not_given_a_whole_batch() -> None:
    """Nobody knows what jobs cost before they are done: who has one waits for one job of each of the others, not for a batch."""
    turns = turns_of(*(Work(f"heavy{number % 20}", number, 400.0 + number % 7) for number in range(4_000)))
    passed, waiting = [0], False
    for number in range(60):
        if not waiting:
            turns.put(Work("light", number, 40.0))
            waiting = True
            passed.append(0)
        taken = turns.several(64)
        turns.give_back(taken[10:])
        for job in taken[:10]:
            if job.user == "light":
                waiting = False
            elif waiting:
                passed[-1] += 1
            turns.charge(job.user, job.cost)
    assert max(passed) <= 20, "others' jobs that one was behind"


def test_what_was_taken_to_cost_more_than_it_has_counts_as_what_it_has() -> None:
    turns = turns_of(*(Work("ann", number) for number in range(3)), Work("bob", 0))
    for user in "ann", "bob":
        turns.owe(user, 100.0)
    (taken,) = turns.several(1)
    assert taken.user == "ann"
    turns.charge("ann", taken.cost)
    turns.put(Work("carol", 0))
    turns.owe("carol", 50.0)
    assert [job.user for job in served(turns)] == ["bob", "ann", "ann", "carol"]


def test_places_that_are_no_more_are_forgotten() -> None:
    turns = turns_of(*(Work(user, number, float(5_000 - number)) for number in range(5_000) for user in "ab"))
    served(turns, 9_000)
    assert len(turns._heap) < 100 and len(turns) == 1_000


def test_the_servers_own_jobs_come_first() -> None:
    turns = turns_of(*(Work("ann", number) for number in range(5)), Work(SERVER, 0), Work(SERVER, 1))
    assert [(job.user, job.number) for job in served(turns, 3)] == [(SERVER, 0), (SERVER, 1), ("ann", 0)]


def test_what_is_given_back_is_first_in_its_line() -> None:
    turns = turns_of(*(Work(user, number) for user in "ab" for number in range(3)))
    taken = [job for job in (turns.take() for _ in range(4)) if job is not None]
    turns.give_back(taken)
    assert len(turns) == 6
    order = served(turns)
    for user in "ab":
        assert [job.number for job in order if job.user == user] == [0, 1, 2]


def test_what_is_kept_of_who_is_gone_is_bounded() -> None:
    turns = turns_of()
    for number in range(10_000):
        turns.put(Work(f"user{number}", 0))
        served(turns)
    assert len(turns._ends) < 200
    assert not turns._heap and not turns._lines


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.5, 1.0, 30.0])), max_size=60),
    st.lists(st.integers(0, 5), max_size=60),
)
def test_everything_is_served_once_and_in_the_order_of_its_line(come: list[tuple[str, float]], pauses: list[int]) -> None:
    turns = turns_of()
    done: list[Work] = []
    for number, (user, cost) in enumerate(come):
        turns.put(Work(user, number, cost))
        done += served(turns, pauses[number] % 3 if number < len(pauses) else 0)
    done += served(turns)
    assert sorted(job.number for job in done) == list(range(len(come)))
    for user in "abc":
        numbers = [job.number for job in done if job.user == user]
        assert numbers == sorted(numbers)
    assert len(turns) == 0
