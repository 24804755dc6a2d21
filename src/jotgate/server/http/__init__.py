"""The HTTP edge of the server: requests in, responses out, and one place that renders errors.

It knows cookies, origins, content types and status codes; what a request means is decided in flows.
"""
