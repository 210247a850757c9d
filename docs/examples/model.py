"""A stand-in for a model: answers every POST with its name and a score. Usage: model.py PORT NAME"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Model(BaseHTTPRequestHandler):
    """Reads a JSON document, answers one."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one packet

    def do_POST(self) -> None:
        """Score the request."""
        features = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"model": sys.argv[2], "score": 0.1 * len(features)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Model).serve_forever()
