"""Connects to a server on its own machine."""

import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5) as connection:
    print(connection.recv(64).decode())
