"""How engines are, read by another mapping of the same memory."""

import os

from keepless.inference.embedded.pulse import Pulses, State


def test_what_one_process_tells_another_reads() -> None:
    told = Pulses(2)
    try:
        read = Pulses(2, told.fd)
        assert [read[number].state for number in (0, 1)] == [State.RESTING] * 2
        told[1].tell(State.STARTING)
        told[1].tell(State.CRASHED)
        told[1].tell(State.CRASHED)
        assert (read[1].state, read[1].crashes) == (State.CRASHED, 2)
        told[1].tell(State.RUNNING)
        assert (read[1].state, read[1].crashes) == (State.RUNNING, 2)
        assert (read[0].state, read[0].crashes) == (State.RESTING, 0)
    finally:
        os.close(told.fd)


def test_no_engine_at_all_needs_no_line() -> None:
    os.close(Pulses(0).fd)
