"""Serves files over TLS, and notes what it is asked: a line each of path and what came as authorization.

Arguments: directory, certificate with key, file of notes, where `/moved/` leads (or nothing), who is let in (or
nothing: everybody). Prints its port.
"""

import base64
import http.server
import os
import ssl
import sys

directory, certificate, notes, target, who = sys.argv[1:6]


class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments):
        super().__init__(*arguments, directory=directory)

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        given = self.headers.get("Authorization", "-")
        with open(notes, "a") as file:
            file.write(f"{self.path} {given}\n")
        wanted = "Basic " + base64.b64encode(who.encode()).decode()
        if who and given != wanted:
            # A server that tells what it was told.
            told = given.removeprefix("Basic ")
            body = b"not " + (base64.b64decode(told) if told != "-" else b"you") + b"\n"
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", target + self.path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            super().do_GET()


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
