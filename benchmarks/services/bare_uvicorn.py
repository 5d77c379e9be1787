"""The limit of uvicorn, asked at its protocol, without an application: python bare_uvicorn.py PORT [BUNDLE].

No routes, limits, metrics or log. With a bundle, its model answers row by row; without one, always the same words do.
"""

import sys

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SAME = b'{"churn":false,"churn_probability":0.131521149}'


def answerer(arguments):
    if not arguments:
        return lambda body: SAME
    import ketch

    return ketch.load(arguments[0])


class Bare(HttpToolsProtocol):
    def on_headers_complete(self):
        self.body = b""

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        answer = answer_to(self.body)
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer)
        )


answer_to = answerer(sys.argv[2:])
settings = {"http": Bare, "loop": "uvloop", "lifespan": "off", "log_level": "error"}
uvicorn.run(lambda *_: None, host="127.0.0.1", port=int(sys.argv[1]), **settings)
