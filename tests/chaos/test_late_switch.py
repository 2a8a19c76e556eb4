"""The switch that makes frames late, with sockets in the place of devices."""

import random
import socket

from tests.chaos.late_switch import LateSwitch


def test_frames_are_late_overtake_each_other_and_come_twice() -> None:
    """Goal: the fault is what it says. Method: numbered frames, time by hand."""
    near, into = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    far, out_of = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, into, far, out_of:
        for each in (near, far, out_of):
            each.setblocking(False)
        switch = LateSwitch(random.Random(1), (10, 40), 20, 5, {near.fileno(): far.fileno()})
        for number in range(60):
            into.send(bytes([number]))
        switch.take(near.fileno(), 0.0)
        assert switch.send_due(0.009) > 0
        assert arrived(out_of) == []
        switch.send_due(0.041)
        soon = arrived(out_of)
        assert switch.send_due(0.5) == 1.0  # nothing is left
        every = [*soon, *arrived(out_of)]
    assert sorted(set(every)) == list(range(60))
    assert len(every) > 60
    assert soon != sorted(soon)
    assert len(soon) < len(every)


def arrived(out_of: socket.socket) -> list[int]:
    """The numbers of the frames that have come."""
    numbers = []
    while True:
        try:
            numbers.append(out_of.recv(10)[0])
        except BlockingIOError:
            return numbers
