"""The rule that unit tests reach nothing outside their process is enforced."""

from __future__ import annotations

import socket

import pytest
from pytest_socket import SocketBlockedError


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
@pytest.mark.filterwarnings("ignore:A test tried to use socket")  # the guard warns as well as it raises
def test_sockets_are_blocked_in_unit_tests(family: socket.AddressFamily) -> None:
    with pytest.raises(SocketBlockedError):
        socket.socket(family)
