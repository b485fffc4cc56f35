"""The floor: what set-to-register takes when one process does nothing but that, on bare blocking sockets.

It parses the request, writes the register, publishes, answers. No password, no sharing, no storage, one wallbox.
"""

from __future__ import annotations

import multiprocessing
import socket
import struct
from multiprocessing.connection import Connection

from bench.client import tenths_of_amperes


class Floor:
    """The floor in a process of its own; ``port`` takes the same request as the bridge."""

    def __init__(self, device_port: int, broker_port: int) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_serve, args=(theirs, device_port, broker_port), daemon=True)
        self._process.start()
        self.port: int = ours.recv()

    def __enter__(self) -> Floor:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(2)


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(2) + text


def _serve(pipe: Connection, device_port: int, broker_port: int) -> None:
    device, broker = _connected(device_port), _connected(broker_port)
    connect = _text(b"MQTT") + b"\x04\x02\x00\x00" + _text(b"floor")
    broker.sendall(bytes([0x10, len(connect)]) + connect)
    broker.recv(4)
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number = 0
    while request := client.recv(4096):
        query = request.split(b" ", 2)[1].partition(b"?")[2]
        fields = dict(pair.split(b"=") for pair in query.split(b"&"))
        value = tenths_of_amperes(float(fields[b"val"]))
        number = number % 0xFFFF + 1
        device.sendall(struct.pack(">HHHBBHH", number, 0, 6, 1, 6, 101, value))
        device.recv(64)
        # QoS 1, retained
        publish = _text(b"floor/limit_a") + number.to_bytes(2) + str(value / 10).encode()
        broker.sendall(bytes([0x33, len(publish)]) + publish)
        broker.recv(4)
        client.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n"ok"')
