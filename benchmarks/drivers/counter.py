"""A wire that counts: ``python -m drivers.counter HOST PORT`` prints a URI and passes bytes on, both ways.

For each line on standard input it prints ``[sent, received]``, the bytes that have passed from clients to the server
and back since it began.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading

_passed = [0, 0]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: int) -> None:
    try:
        while piece := await reader.read(1 << 16):
            _passed[direction] += len(piece)
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    far_reader, far_writer = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    await asyncio.gather(_pass_on(reader, far_writer, 0), _pass_on(far_reader, writer, 1))


def _report() -> None:
    for _ in sys.stdin:
        print(json.dumps(_passed), flush=True)
    os._exit(0)


async def _serve() -> None:
    server = await asyncio.start_server(_connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"mongodb://127.0.0.1:{port}/?directConnection=true", flush=True)
    threading.Thread(target=_report, daemon=True).start()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
