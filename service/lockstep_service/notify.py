"""Telling systemd that the service is ready (sd_notify(3)), where it asks for that."""

from __future__ import annotations

import os
import socket


def ready() -> bool:
    """Says READY to the service manager; whether there was one to tell. ``OSError`` where it does not listen."""
    address = os.environ.pop("NOTIFY_SOCKET", None)  # no child is to speak for this process
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.sendto(b"READY=1", address)
    return True
