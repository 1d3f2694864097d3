"""The sandbox's server as its own process; client.py is the other side."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from sm_mlops.sandbox import client
from sm_mlops.sandbox.server import Server


def main() -> None:
    parser = argparse.ArgumentParser(prog="sm_mlops.sandbox.daemon")
    parser.add_argument("root", type=Path)
    parser.add_argument("region")
    parser.add_argument("--standing", action="store_true")
    options = parser.parse_args()
    server = Server(options.root, options.region)
    try:
        server.start()
        client.write_record(server.folder, server.port, server.token, server.region)
    except client.SandboxError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        sys.exit(2)
    except OSError as error:
        print(json.dumps({"error": f"cannot write to {server.folder}: {error}"}), flush=True)
        raise
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: threading.Thread(target=server.close).start())
    if not options.standing:
        server.belong_to_starter()
        threading.Thread(target=_watch_starter, args=(server,), daemon=True).start()
    # The starter waits for this line and then closes its end of the pipe.
    print(json.dumps({"port": server.port}), flush=True)
    with (server.folder / "server.log").open("a") as target:
        os.dup2(target.fileno(), 1)
        os.dup2(target.fileno(), 2)
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
    server.warm()
    # What is loaded now stays: collecting garbage in it would cost 20 ms each time.
    gc.collect()
    gc.freeze()
    server.ended.wait()
    # Threads of requests may still wait on their connections; everything is saved.
    os._exit(0)


def _watch_starter(server: Server) -> None:
    words = b""
    while piece := os.read(0, 64):
        words += piece
    server.left(goodbye=words.startswith(b"bye"))
