"""A web server goes in; out comes one that answers only who may ask, and tells browsers to keep what they see here."""

import hmac
import ipaddress
import secrets

from flask import Flask, Response, redirect, request

COOKIE = "siamray_dashboards"
_HERE = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})
# Dash runs its own inline scripts; everything comes from this server, and nothing is sent elsewhere.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def new_token() -> str:
    """Draws a token that cannot be guessed."""
    return secrets.token_urlsafe(32)


def guard(server: Flask, token: str | None) -> None:
    """Puts a guard before every answer of a server.

    Args:
        server: of the pages.
        token: what a link must hold, compared in constant time; afterwards a cookie stands for it. None of a server
            that listens on this machine alone, which answers browsers that call it by a name of this machine: another
            site whose name leads here reads nothing.
    """

    @server.before_request
    def admit() -> Response | None:
        if token is None:
            name = request.host.rpartition(":")[0] if not request.host.endswith("]") else request.host
            return None if (name or request.host) in _HERE else _refused("open the address that was printed")
        if _same(request.cookies.get(COOKIE, ""), token):
            return None
        if not _same(request.args.get("token", ""), token):
            return _refused("open the link that was printed where the dashboards were started: it holds a token")
        # Without the token, so that it stays out of the browser's history and of what is copied from its bar.
        answer = redirect(request.path)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="Lax")
        assert isinstance(answer, Response)
        return answer

    @server.after_request
    def headed(answer: Response) -> Response:
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _refused(remedy: str) -> Response:
    return Response(f"siamray dashboards: not admitted; {remedy}\n", 403, mimetype="text/plain")
