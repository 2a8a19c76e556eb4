"""The kinds of value that settings and declarations are written in.

Each parser takes what TOML gave and returns the value, or raises `ValueError`
with a sentence that says what is wrong with it.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator

from mesh import limits
from mesh.ids import NAME_PATTERN

PORT_MAX: Final = 65_535
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SIZE: Final = re.compile(r"(\d+)(B|KiB|MiB|GiB)")
_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An IP address and a port; `str()` is what gRPC and Envoy take."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.ip).is_loopback

    def with_port(self, port: int) -> "Endpoint":
        """The same address with another port."""
        return Endpoint(self.ip, port)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text in quotes, not {value!r}")
    return value


def parse_ip(value: object) -> str:
    """A plain IPv4 or IPv6 address in its shortest form.

    Names are refused: finding a host must not depend on another service.
    """
    text = _text(value)
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address (host names are not resolved)") from None


def parse_endpoint(value: object) -> Endpoint:
    """ "10.0.0.1:7400" or "[fd00::1]:7400"."""
    if isinstance(value, Endpoint):
        return value
    text = _text(value)
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not ADDRESS:PORT")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= PORT_MAX):
        raise ValueError(f"the port of {text!r} is not a number from 1 to {PORT_MAX}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"the IPv6 address of {text!r} must stand in brackets")
    return Endpoint(parse_ip(host), int(port))


def parse_path(value: object) -> Path:
    """An absolute path; what it names need not exist yet."""
    if isinstance(value, Path):
        value = str(value)
    text = _text(value)
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not an absolute path")
    return Path(text)


def parse_name(value: object) -> str:
    """A name of a host or service."""
    text = _text(value)
    if not NAME_PATTERN.fullmatch(text) or len(text) > limits.NAME_CHARS_MAX:
        raise ValueError(
            f"{text!r} is not a name: lower-case letters and digits, words joined by '-',"
            f" beginning with a letter, at most {limits.NAME_CHARS_MAX} characters"
        )
    return text


def parse_duration_ms(value: object) -> int:
    """ "250ms", "1.5s", "5m" or "1h" in milliseconds."""
    if isinstance(value, int | float):
        raise ValueError(f"{value!r} has no unit: write it as text, such as '{value}s'")
    text = _text(value)
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: a number followed by ms, s, m or h")
    return round(float(match[1]) * _MS[match[2]])


def parse_size_bytes(value: object) -> int:
    """ "64KiB", "256MiB" or "2GiB" in bytes."""
    if isinstance(value, int):
        raise ValueError(f"{value!r} has no unit: write it as text, such as '256MiB'")
    text = _text(value)
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size: a whole number followed by B, KiB, MiB or GiB")
    return int(match[1]) * _BYTES[match[2]]


def parse_words(value: object) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"must be a list of texts, not {value!r}")
    return tuple(value)


def _as(parse: Callable[[object], object]) -> BeforeValidator:
    return BeforeValidator(parse)


Ip = Annotated[str, _as(parse_ip)]
Address = Annotated[Endpoint, _as(parse_endpoint)]
AbsolutePath = Annotated[Path, _as(parse_path)]
Name = Annotated[str, _as(parse_name)]
DurationMs = Annotated[int, _as(parse_duration_ms)]
SizeBytes = Annotated[int, _as(parse_size_bytes)]
Words = Annotated[tuple[str, ...], _as(parse_words)]
