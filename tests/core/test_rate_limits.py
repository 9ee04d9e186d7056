"""What is a rate limit, and how a budget of open calls follows one: no driver, no clock but numbers."""

from __future__ import annotations

import email.utils
import http
from types import SimpleNamespace

import pytest

from skeleton_of_thought.budget import LONGEST_WAIT, MAX_WAITS, Budget, default_limit
from skeleton_of_thought.rate_limits import is_thread_shortage, read_rate_limit
from skeleton_of_thought.settings import Settings
from skeleton_of_thought.types import Point, Skeleton

NOW = 1_800_000_000.0


class ApiError(Exception):
    """An error with the attributes that clients give theirs."""

    def __init__(self, **attributes: object) -> None:
        super().__init__("the server refused")
        vars(self).update(attributes)


class RateLimitError(Exception): ...


class TooManyRequestsError(Exception): ...


class ResourceExhausted(Exception): ...


class ThrottlingException(Exception): ...


def caused(cause: Exception) -> Exception:
    error = ValueError("the wrapper's words")
    error.__cause__ = cause
    return error


def while_handling(first: Exception) -> Exception:
    try:
        try:
            raise first
        except Exception:
            raise KeyError("in the handler")  # noqa: B904
    except KeyError as error:
        return error


def response(status: int, **headers: str) -> SimpleNamespace:
    return SimpleNamespace(status_code=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


BOTO = {"Error": {"Code": "ThrottlingException"}, "ResponseMetadata": {"HTTPStatusCode": 400, "HTTPHeaders": {}}}

LIMITS = [
    (ApiError(status_code=429), None),
    (ApiError(status=429), None),
    (ApiError(code=429), None),
    (ApiError(code="429"), None),
    (ApiError(code=http.HTTPStatus.TOO_MANY_REQUESTS), None),
    (ApiError(response=response(429)), None),
    (ApiError(response=BOTO), None),
    (ApiError(code=lambda: SimpleNamespace(name="RESOURCE_EXHAUSTED")), None),
    (ApiError(body={"error": {"type": "rate_limit_exceeded"}}), None),
    (ApiError(status_code=200, body={"error": {"type": "overloaded_error"}}), None),
    (ApiError(status_code=529), None),
    (RateLimitError(), None),
    (TooManyRequestsError(), None),
    (ResourceExhausted(), None),
    (ThrottlingException(), None),
    (caused(ApiError(status_code=429)), None),
    (while_handling(caused(RateLimitError())), None),
    (ApiError(status_code=429, response=response(429, retry_after="7")), 7.0),
    (ApiError(status_code=429, response=response(429, Retry_After="0.5")), 0.5),
    (ApiError(status_code=429, response=response(429, retry_after_ms="250", retry_after="1")), 0.25),
    (ApiError(status=429, headers={"RETRY-AFTER": "3"}), 3.0),
    (ApiError(status_code=429, retry_after=2), 2.0),
    (ApiError(response=response(429, retry_after=email.utils.formatdate(NOW + 30, usegmt=True))), 30.0),
    (ApiError(response=response(429, retry_after=email.utils.formatdate(NOW - 30, usegmt=True))), 0.0),
    (ApiError(response=response(429, retry_after="soon")), None),
    (ApiError(response=response(429, retry_after="nan")), None),
    (ApiError(response=response(429, retry_after="-4")), 0.0),
    (ApiError(response=response(503, retry_after="2")), 2.0),
    (caused(ApiError(response=response(429, retry_after="9"))), 9.0),
    (
        ApiError(
            response=response(
                429,
                x_ratelimit_remaining_requests="0",
                x_ratelimit_reset_requests="1m2.5s",
                x_ratelimit_remaining_tokens="12",
                x_ratelimit_reset_tokens="6m0s",
            )
        ),
        62.5,
    ),
]


@pytest.mark.parametrize(("error", "seconds"), LIMITS, ids=range(len(LIMITS)))
def test_rate_limits_are_read_from_what_clients_have_in_common(error, seconds):
    limit = read_rate_limit(error, NOW)
    assert limit is not None
    assert limit.seconds == seconds


OTHERS = [
    ValueError("429 is a number"),
    ConnectionError("reset"),
    ApiError(status_code=500),
    ApiError(status_code=400, code="context_length_exceeded"),
    ApiError(status_code=503),
    ApiError(status_code=True),
    ApiError(code=None, response=None),
    ApiError(code=len),
    # No waiting helps an account without credit.
    ApiError(status_code=429, code="insufficient_quota"),
    ApiError(status_code=429, body={"error": {"type": "insufficient_quota"}}),
    caused(ApiError(status_code=429, body={"code": "billing_hard_limit_reached"})),
    ApiError(response=response(500, retry_after="5")),
]


@pytest.mark.parametrize("error", OTHERS, ids=range(len(OTHERS)))
def test_other_errors_are_no_rate_limits(error):
    assert read_rate_limit(error, NOW) is None


def test_an_error_that_is_its_own_cause_ends():
    error = ValueError("a circle")
    error.__cause__ = other = KeyError("of two")
    other.__cause__ = error
    assert read_rate_limit(error, NOW) is None


def test_a_thread_that_cannot_start_is_recognised():
    assert is_thread_shortage(caused(RuntimeError("can't start new thread")))
    assert not is_thread_shortage(RuntimeError("cannot schedule new futures after shutdown"))
    assert not is_thread_shortage(ValueError("can't start new thread"))


# --- the default bound -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "titles", "processors", "limit"),
    [
        ({}, None, 2, 10),
        ({"eager": True}, None, 2, 11),
        ({"max_points": 3}, None, 2, 6),
        ({"max_points": 3}, None, 12, 16),
        ({"max_points": 3}, None, 64, 32),
        ({"max_points": 40}, None, 64, 40),
        ({"max_points": 3}, 50, 2, 50),
        ({"eager": True}, 2, None, 5),
    ],
)
def test_the_default_bound_keeps_one_answer_parallel(monkeypatch, settings, titles, processors, limit):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    monkeypatch.setattr("os.process_cpu_count", lambda: processors, raising=False)
    skeleton = None if titles is None else Skeleton(tuple(Point(i, "x") for i in range(titles)))
    assert default_limit(Settings(**settings), skeleton) == limit


# --- the budget --------------------------------------------------------------------------------------------

LIMITED = RateLimitError("too fast")


class Calls:
    """Open calls of a budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.places: list = []

    def open(self, now: float = 0.0) -> int:
        """Opens calls while there is room; at most 100."""
        while len(self.places) < 100 and (place := self.budget.take(now)) is not None:
            self.places.append(place)
        return len(self.places)

    def refuse(self, count: int, now: float = 0.0, seconds: float | None = None, backoff: float = 1.0) -> list[bool]:
        refused, self.places = self.places[:count], self.places[count:]
        again = [self.budget.slow_down(place, LIMITED, seconds, backoff, now) for place in refused]
        self.budget.give(refused)
        return again

    def succeed(self, count: int = 1) -> None:
        for _ in range(count):
            self.budget.give([self.places.pop(0)], succeeded=True)


def test_a_burst_slows_the_budget_down_once():
    calls = Calls(Budget(12))
    assert calls.open() == 12
    assert calls.refuse(9) == [True] * 9
    assert calls.budget.resumes(0.0) == 1.0
    assert calls.open(0.5) == 3  # nothing opens during the pause
    assert calls.open(1.0) == 6  # half of the twelve


def test_the_pause_grows_until_a_call_succeeds():
    calls, now, pauses = Calls(Budget(8)), 0.0, []
    for _ in range(5):
        assert all(calls.refuse(calls.open(now), now))
        pauses.append(calls.budget.resumes(now) - now)
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 8]
    calls.open(now)
    calls.succeed()
    calls.open(now)
    calls.refuse(1, now)
    assert calls.budget.resumes(now) - now == 1


def test_the_longest_wait_of_a_burst_counts():
    calls = Calls(Budget(8))
    calls.open()
    calls.refuse(1, seconds=2.0)
    calls.refuse(1, seconds=5.0)
    calls.refuse(1, seconds=3.0)
    calls.refuse(1)
    assert calls.budget.resumes(0.0) == 5.0


def test_the_number_rises_again_as_calls_succeed_and_ends_where_it_began():
    calls = Calls(Budget(4))
    calls.open()
    calls.refuse(4, seconds=0.0)
    widths = [calls.open()]
    for _ in range(12):
        calls.succeed()
        widths.append(calls.open())
    assert widths == [2, 2, 3, 3, 3, 4, *[4] * 7]


def test_a_budget_without_a_number_has_none_again():
    calls = Calls(Budget(None))
    for _ in range(4):
        calls.places.append(calls.budget.take(0.0))
    calls.refuse(4, seconds=0.0)
    assert calls.open() == 2
    for _ in range(5):
        calls.succeed()
        calls.open()
    assert calls.open() == 100


def test_it_rises_the_more_slowly_the_more_often_it_was_lowered():
    calls = Calls(Budget(2))
    calls.open()
    calls.refuse(2, seconds=0.0)
    calls.open()
    calls.refuse(1, seconds=0.0)
    widths = []
    for _ in range(3):
        widths.append(calls.open())
        calls.succeed()
    assert widths == [1, 1, 2]


def test_a_server_that_serves_nobody_is_given_up():
    calls, now = Calls(Budget(4)), 0.0
    for _ in range(MAX_WAITS):
        assert all(calls.refuse(calls.open(now), now))
        now = calls.budget.resumes(now)
    assert calls.refuse(calls.open(now), now) == [False]
    assert calls.budget.resumes(now) is None
    calls.open(now)
    calls.succeed()
    calls.open(now)
    assert calls.refuse(1, now) == [True]


def test_a_very_long_wait_is_not_waited_for():
    calls = Calls(Budget(4))
    calls.open()
    assert calls.refuse(1, seconds=LONGEST_WAIT + 1) == [False]
    assert calls.budget.resumes(0.0) is None
    assert calls.refuse(1, seconds=LONGEST_WAIT) == [True]


def test_exempt_calls_take_up_no_room_until_the_rate_is_limited():
    budget = Budget(2)
    free = [budget.take(0.0, exempt=True) for _ in range(9)]
    assert all(free)
    calls = Calls(budget)
    assert calls.open() == 2
    calls.refuse(1, seconds=0.0)
    calls.places.append(budget.take(0.0, exempt=True))
    assert budget.open == 2
    assert budget.take(0.0, exempt=True) is None
    budget.give(free)
    assert budget.open == 2
    calls.succeed(2)
    calls.open()
    assert budget.take(0.0, exempt=True) is None  # not before the budget is as wide as it was


def test_a_pause_is_logged_once(caplog):
    calls = Calls(Budget(12))
    calls.open()
    calls.refuse(12, seconds=2.0)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "RateLimitError: too fast" in record.getMessage()
    assert "for 2 s, then at most 6 at a time" in record.getMessage()


def test_those_who_wait_are_woken_when_there_may_be_room():
    budget, woken = Budget(1), []
    wake = lambda: woken.append(1)  # noqa: E731
    budget.join(wake)
    place = budget.take(0.0)
    assert not woken
    budget.give([place])
    assert woken == [1]
    budget.leave(wake)
    budget.give([budget.take(0.0)])
    assert woken == [1]
