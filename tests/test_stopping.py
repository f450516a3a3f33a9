"""Signals become a word to stop, once."""

import os
import signal
import threading
import time

import pytest

from volrecon.stopping import told_to_stop

BOTH = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers():
    """Whatever a test does, pytest keeps its handlers and no alarm is set."""
    before = {kind: signal.getsignal(kind) for kind in (*BOTH, signal.SIGALRM)}
    yield before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    after = {kind: signal.getsignal(kind) for kind in before}
    for kind, handler in before.items():
        signal.signal(kind, handler)
    assert after == before


def send(kind: signal.Signals) -> None:
    os.kill(os.getpid(), kind)


def send_both(first: signal.Signals, second: signal.Signals) -> None:
    send(first)
    send(second)
    pytest.fail("it went on")


def send_and_work(kind: signal.Signals) -> None:
    send(kind)
    time.sleep(10)
    pytest.fail("it went on")


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("grace", [None, 30.0])
def test_the_first_is_noted(kind, grace):
    with told_to_stop(grace) as told:
        assert told == []
        send(kind)
        assert told == [kind]
        assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (grace is not None)


@pytest.mark.parametrize("first", BOTH)
def test_K7_a_second_ctrl_c_ends_at_once(first):
    with pytest.raises(KeyboardInterrupt), told_to_stop(30.0):
        send_both(first, signal.SIGINT)


def test_a_second_term_takes_its_usual_course():
    usual = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: usual.append(number))
    try:
        with told_to_stop() as told:
            send(signal.SIGTERM)
            send(signal.SIGTERM)
        assert (told, usual) == ([signal.SIGTERM], [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_K7_out_of_grace():
    with pytest.raises(KeyboardInterrupt), told_to_stop(0.05):
        send_and_work(signal.SIGTERM)


def test_in_time():
    with told_to_stop(0.1):
        send(signal.SIGTERM)
    time.sleep(0.15)


def test_without_a_signal_nothing_is_set():
    alarm = signal.getsignal(signal.SIGALRM)
    with told_to_stop(0.01):
        assert signal.getsignal(signal.SIGALRM) is alarm
        time.sleep(0.02)


@pytest.mark.parametrize("kind", BOTH)
def test_what_is_ignored_stays_ignored(kind):
    """As in `volrecon run job.toml &` of a script, where Ctrl-C is for the others."""
    before = signal.signal(kind, signal.SIG_IGN)
    try:
        with told_to_stop() as told:
            send(kind)
            assert told == []
            other = next(k for k in BOTH if k != kind)
            send(other)
            assert told == [other]
            assert signal.getsignal(kind) is signal.SIG_IGN
    finally:
        signal.signal(kind, before)


def test_a_thread_leaves_signals_alone(handlers):
    seen = []

    def work():
        with told_to_stop(1.0) as told:
            seen.append((list(told), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [([], handlers[signal.SIGTERM])]


def test_one_inside_the_other():
    """The inner one has the signal; afterwards the outer one is there again."""
    with told_to_stop() as outer:
        with told_to_stop() as inner:
            send(signal.SIGTERM)
        send(signal.SIGINT)
    assert (inner, outer) == ([signal.SIGTERM], [signal.SIGINT])
