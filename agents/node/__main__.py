"""Command line of the node agent: ``python -m agents.node --listen-fd N``."""

import argparse
import asyncio
import socket

from agents.node.agent import serve


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m agents.node")
    parser.add_argument("--listen-fd", type=int, required=True)
    asyncio.run(serve(socket.socket(fileno=parser.parse_args().listen_fd)))


if __name__ == "__main__":
    main()
