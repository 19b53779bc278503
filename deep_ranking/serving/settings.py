"""What a server is started with, and which of it is safe."""

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from deep_ranking.files import InputError

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
ANY_ADDRESS = ("0.0.0.0", "::")
VARIABLE = "DEEP_RANKING_TOKEN"
FEWEST_CHARACTERS = 16
TOKEN = re.compile(r"[!-~]{16,200}")
MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The settings of a server.

    Attributes:
        host: the address to listen on.
        port: the port; 0 for any free one.
        token: what every request must bring; None for none, on this machine's own address alone.
        skip_unavailable: whether shards that cannot be searched are left out.
        allow_changes: whether duplicates may be set aside.
        ratings: the file that gets what people answer; None to ask them nothing.
        rater: who answers where a request names nobody; "" for nobody.
        corrections: the file that gets classes that people say are wrong; None to take none.
        log: whether to print a line for each request.
        upload_bytes: most bytes of the body of one request.
        held_bytes: most bytes of all bodies at once, and of all answers that are being sent.
        body_seconds: time in which a body must arrive.
        work_seconds: time after which a request that is still worked on is answered with 503.
        queue: requests that wait while all threads work; more are answered with 503.
        cache_bytes: most bytes of cached thumbnails.

    Example:
        >>> ServerSettings(host="192.168.1.5")
        Traceback (most recent call last):
        deep_ranking.files.errors.InputError: 192.168.1.5: others can reach this address, ...

    Raises:
        InputError: others can reach the address and there is no token, or the token is too short.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    skip_unavailable: bool = False
    allow_changes: bool = False
    ratings: Path | None = None
    rater: str = ""
    corrections: Path | None = None
    log: bool = False
    upload_bytes: int = 32 * MEBIBYTE
    held_bytes: int = 256 * MEBIBYTE
    body_seconds: float = 30.0
    work_seconds: float = 60.0
    queue: int = 64
    cache_bytes: int = 256 * MEBIBYTE

    def __post_init__(self) -> None:
        if self.token is None and not is_local(self.host):
            raise InputError(
                f"{self.host}: others can reach this address, so it needs a token of "
                f"{FEWEST_CHARACTERS} or more characters; give --token or set {VARIABLE}, or leave "
                "out --host"
            )
        if self.token is not None and not TOKEN.fullmatch(self.token):
            raise InputError(
                f"the token must have {FEWEST_CHARACTERS} to 200 ASCII letters, digits and signs, "
                f"without blanks; change --token or {VARIABLE}"
            )

    @property
    def address(self) -> str:
        """The address to open in a browser on this machine."""
        host = "127.0.0.1" if self.host in ANY_ADDRESS else self.host
        return f"http://{in_brackets(host)}:{self.port}"

    def is_own_host(self, header: str) -> bool:
        """Return whether a Host header names this server.

        A page of another site can make its own name lead to 127.0.0.1 (DNS rebinding); its requests
        carry that name. If the server listens on all addresses, any number is one of its own.
        """
        name, port = _split(header.lower())
        if port != self.port and not (port is None and self.port == 80):
            return False
        own = {*LOCAL_NAMES, in_brackets(self.host.lower())}
        if self.host not in ANY_ADDRESS:
            return name in own
        return name in own | {socket.gethostname().lower()} or _is_number(name)


def is_local(host: str) -> bool:
    """Return whether only programs on this machine can reach an address."""
    if host == "localhost":
        return True
    return _is_number(host) and ipaddress.ip_address(host).is_loopback


def in_brackets(host: str) -> str:
    """Return a host as addresses have it: an IPv6 number in brackets."""
    return f"[{host}]" if ":" in host else host


def _split(header: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", header)
    if found is None:
        return "", -1
    return found[1], None if found[2] is None else int(found[2])


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
