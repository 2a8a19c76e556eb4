"""Reading stored messages: all of it is understood, or none of it is used."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from mesh.errors import Corruption, UnknownCommand

M = TypeVar("M", bound=Message)


def parse_strictly(kind: type[M], data: bytes, where: str) -> M:
    """A message of which every field is known.

    Fails: `Corruption` when the bytes are no such message, `UnknownCommand`
    when they hold fields of a later version, at any depth.
    """
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise Corruption(where, f"{len(data)} bytes are no {kind.__name__}") from error
    size = message.ByteSize()
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        raise UnknownCommand(
            f"{where} holds fields of {kind.__name__} that this version does not know; upgrade this host"
        )
    return message
