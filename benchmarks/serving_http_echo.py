"""A bare ASGI application that returns each request's body: what uvicorn and its clients cost without a policy."""


async def app(scope, receive, send):
    """Answer one request."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
