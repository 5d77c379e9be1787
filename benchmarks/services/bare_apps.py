"""The limits of maintained servers: the least application that reads a body and answers, in each of their languages."""

BODY = b'{"churn":false,"churn_probability":0.131521149}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def asgi(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


def wsgi(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [(name.decode(), value.decode()) for name, value in HEADERS])
    return [BODY]


async def rsgi(scope, proto):
    await proto()
    proto.response_bytes(200, [("content-type", "application/json")], BODY)
