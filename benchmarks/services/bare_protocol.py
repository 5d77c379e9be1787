"""The limit of HTTP in Python: uvloop, llhttp by httptools, and nothing else: python bare_protocol.py PORT [BUNDLE].

No routes, limits, time-outs, metrics or log. With a bundle, its model answers; without one, always the same words do.
"""

import asyncio
import sys

import httptools
import uvloop

SAME = b'{"churn":false,"churn_probability":0.131521149}'


def answerer(arguments):
    if not arguments:
        return lambda body: SAME
    import ketch

    return ketch.load(arguments[0])


class Bare(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.parser, self.body = transport, httptools.HttpRequestParser(self), b""

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        answer, self.body = answer_to(self.body), b""
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer)
        )


async def serve():
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


answer_to = answerer(sys.argv[2:])
uvloop.run(serve())
