"""The address by which a client asked the server. A proxy with TLS before it says so by ``X-Forwarded-Proto``. Pure."""

from starlette.requests import Request


def is_secure(request: Request) -> bool:
    """Return whether a client asked by TLS; of several proxies, the first one says so."""
    forwarded = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return (forwarded or request.url.scheme) == "https"


def asked_address(request: Request) -> str:
    """Return the URL of the server, without a slash at its end."""
    return str(request.base_url.replace(scheme="https" if is_secure(request) else "http")).rstrip("/")
