"""What the signals of this process do to a command."""

import os
import signal
import threading
import time
from pathlib import Path
from queue import SimpleQueue

import pytest

from maintainer.signals import RELOAD, STOP, hold, interruptible, received

PATIENCE = 30.0
"""Seconds that something may take that should happen at once."""


class Command:
    """What a command does when it is interrupted."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[str] = SimpleQueue()

    def cut_off(self) -> None:
        self.calls.put("cut off")

    def next_call(self) -> str:
        return self.calls.get(timeout=PATIENCE)


def _send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP)
def test_a_signal_interrupts_and_a_second_one_cuts_off(number: signal.Signals) -> None:
    command = Command()
    with interruptible(command.calls.put, command.cut_off, patience=PATIENCE) as interrupted:
        assert interrupted.by is None
        assert interrupted.exit_status is None
        _send(number)
        assert command.next_call() == number.name
        _send(signal.SIGTERM)
        assert command.next_call() == "cut off"

    assert interrupted.by is number
    assert interrupted.exit_status == 128 + number


def test_a_step_that_does_not_end_in_time_is_cut_off() -> None:
    command = Command()
    with interruptible(command.calls.put, command.cut_off, patience=0):
        _send(signal.SIGTERM)
        assert [command.next_call(), command.next_call()] == ["SIGTERM", "cut off"]


def test_a_command_that_ends_in_time_is_not_cut_off() -> None:
    command = Command()
    with interruptible(command.calls.put, command.cut_off, patience=PATIENCE):
        _send(signal.SIGTERM)
        assert command.next_call() == "SIGTERM"

    assert command.calls.empty()


def test_afterwards_the_handlers_are_what_they_were_and_no_thread_is_left() -> None:
    command = Command()
    before = [signal.getsignal(number) for number in STOP]
    threads = threading.active_count()
    with interruptible(command.calls.put, command.cut_off, patience=PATIENCE):
        assert [signal.getsignal(number) for number in STOP] != before

    assert [signal.getsignal(number) for number in STOP] == before
    assert threading.active_count() == threads
    assert command.calls.empty()


def test_a_signal_is_received_though_nothing_wakes_the_main_thread_up() -> None:
    with received(RELOAD) as signals:
        waits = threading.Thread(
            target=_send_to_itself_once_this_waits, args=(threading.get_native_id(),)
        )
        waits.start()
        assert signals.get(timeout=PATIENCE) is RELOAD
        waits.join()


def _send_to_itself_once_this_waits(thread: int) -> None:
    """Send a signal to this thread when another one waits: only this one is interrupted by it."""
    state = Path(f"/proc/self/task/{thread}/stat")
    while state.read_text().rpartition(") ")[2][0] != "S":
        time.sleep(0.01)
    signal.pthread_kill(threading.get_ident(), RELOAD)


def test_whoever_receives_other_signals_within_leaves_ours_to_us() -> None:
    with received(RELOAD) as ours:
        with received(*STOP) as theirs:
            _send(RELOAD)
            assert ours.get(timeout=PATIENCE) is RELOAD
            _send(signal.SIGTERM)
            assert theirs.get(timeout=PATIENCE) is signal.SIGTERM
        _send(RELOAD)
        assert ours.get(timeout=PATIENCE) is RELOAD

    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_is_held_is_received_later() -> None:
    hold(RELOAD)
    # To this thread alone: the others of a test process do not hold it.
    signal.pthread_kill(threading.get_ident(), RELOAD)

    with received(RELOAD) as signals:
        assert signals.get(timeout=PATIENCE) is RELOAD
