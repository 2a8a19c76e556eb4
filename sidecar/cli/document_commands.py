"""`trellis documents`: replicated configuration, versioned, with compare-and-set."""

import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from mesh import limits
from mesh.errors import InvalidRequest, Problem
from sidecar.cli.options import SETTINGS_DEFAULT, TIMEOUT_S, ExpectVersion, Json, Settings, Stale, Timeout

documents_app = typer.Typer(
    no_args_is_help=True, help="Replicated configuration: versioned values with compare-and-set."
)

DocumentName = Annotated[
    str, typer.Argument(help="Name of the document, such as network/dns.", show_default=False)
]
Prefix = Annotated[str, typer.Argument(help="Only names that begin with this.", show_default=False)]


@documents_app.command("put")
def put(
    name: DocumentName,
    value: Annotated[
        str | None, typer.Argument(help="The value; left out or '-': standard input.", show_default=False)
    ] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", "-F", help="Take the value from this file.")] = None,
    expect_version: ExpectVersion = None,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Write a document; done when a majority of the hosts holds it.

    However often the command repeats its request, the write counts once.

    Examples:

      trellis documents put network/dns 10.0.0.53

      trellis documents put network/dns --file dns.conf --expect-version 3

      generate-config | trellis documents put network/dns
    """
    from trellis.config_sync.v1 import config_sync_pb2, config_sync_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say
    from sidecar.cli.shapes import document_shape

    request = config_sync_pb2.PutDocumentRequest(
        name=name,
        value=fitting(read_value(value, file)),
        expected_version=expect_version,
        session=new_session(),
        sequence=1,
    )
    with Admin(settings, timeout) as admin:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(admin.channel)
        document = admin.write(stub.PutDocument, request).document
    if json:
        print_json(document_shape(document, with_value=False))
    else:
        say(f"{document.name} is at version {document.version} (revision {document.revision})")


def fitting(value: bytes) -> bytes:
    """The value. One too large for any message would be refused by the transport, in its own words."""
    if len(value) > limits.DOCUMENT_BYTES_MAX:
        problem = Problem(
            "value",
            f"has {len(value)} bytes, at most {limits.DOCUMENT_BYTES_MAX} fit;"
            " split it into several documents",
        )
        raise InvalidRequest("Nothing was written.", [problem])
    return value


def new_session() -> str:
    """A session of its own for each command, under which a repeated request counts once."""
    return f"cli-{secrets.token_hex(8)}"


def read_value(value: str | None, file: Path | None) -> bytes:
    """The value from the argument, the file or standard input."""
    if value is not None and value != "-":
        if file is not None:
            problem = Problem("value", "is given twice, as an argument and with --file", "--file dns.conf")
            raise InvalidRequest("Nothing was written.", [problem])
        return value.encode()
    if file is None:
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        problem = Problem(str(file), f"cannot be read: {error.strerror}")
        raise InvalidRequest("Nothing was written.", [problem]) from error


@documents_app.command("get")
def get(
    name: DocumentName,
    *,
    version: Annotated[int, typer.Option("--version", min=0, help="A kept version; 0: the present one.")] = 0,
    stale: Stale = False,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Print the value of a document, byte for byte.

    Examples:

      trellis documents get network/dns > dns.conf

      trellis documents get network/dns --version 3

      trellis documents get network/dns --json | jq .version
    """
    from trellis.config_sync.v1 import config_sync_pb2, config_sync_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, write_raw
    from sidecar.cli.shapes import document_shape

    with Admin(settings, timeout) as admin:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(admin.channel)
        request = config_sync_pb2.GetDocumentRequest(name=name, version=version, stale_ok=stale)
        document = admin.read(stub.GetDocument, request).document
    if json:
        print_json(document_shape(document))
    else:
        write_raw(document.value)


@documents_app.command("list")
def list_documents(
    prefix: Prefix = "",
    *,
    stale: Stale = False,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """List the documents, without their values.

    Examples:

      trellis documents list

      trellis documents list network/ --json
    """
    from trellis.config_sync.v1 import config_sync_pb2, config_sync_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, show
    from sidecar.cli.shapes import document_shape
    from sidecar.cli.tables import documents_table

    with Admin(settings, timeout) as admin:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(admin.channel)
        request = config_sync_pb2.ListDocumentsRequest(prefix=prefix, stale_ok=stale)
        answer = admin.read(stub.ListDocuments, request)
    if json:
        shapes = [document_shape(document, with_value=False) for document in answer.documents]
        print_json({"revision": answer.revision, "documents": shapes})
    else:
        show(documents_table(answer.documents))


@documents_app.command("history")
def history(
    name: DocumentName,
    *,
    stale: Stale = False,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """The kept versions of a document, newest first.

    Examples:

      trellis documents history network/dns

      trellis documents history network/dns --json | jq '.versions[1].value'
    """
    from trellis.config_sync.v1 import config_sync_pb2, config_sync_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, show
    from sidecar.cli.shapes import document_shape
    from sidecar.cli.tables import documents_table

    with Admin(settings, timeout) as admin:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(admin.channel)
        request = config_sync_pb2.GetDocumentHistoryRequest(name=name, stale_ok=stale)
        answer = admin.read(stub.GetDocumentHistory, request)
    if json:
        print_json({"versions": [document_shape(document) for document in answer.versions]})
    else:
        show(documents_table(answer.versions))


@documents_app.command("watch")
def watch(
    prefix: Prefix = "",
    *,
    after_revision: Annotated[
        int, typer.Option("--after", min=0, help="Only changes after this revision; 0: first what there is.")
    ] = 0,
    json: Json = False,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Print every change in order, until Ctrl-C; with --json one object on each line.

    A lost connection is opened again where it broke, so no version is skipped.

    Examples:

      trellis documents watch

      trellis documents watch network/ --json
    """
    from trellis.config_sync.v1 import config_sync_pb2, config_sync_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say
    from sidecar.cli.shapes import document_shape

    position = [after_revision]
    with Admin(settings, TIMEOUT_S) as admin:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(admin.channel)
        for answer in admin.follow(
            stub.WatchDocuments,
            lambda: config_sync_pb2.WatchDocumentsRequest(prefix=prefix, after_revision=position[0]),
        ):
            document = answer.document
            if json:
                print_json(document_shape(document), line=True)
            elif document.deleted:
                say(f"{document.revision:>6} {document.name} v{document.version} deleted")
            else:
                value = document.value.decode(errors="replace")
                say(f"{document.revision:>6} {document.name} v{document.version} {value[:200]}")
            position[0] = max(position[0], document.revision)


@documents_app.command("delete")
def delete(
    name: DocumentName,
    *,
    expect_version: ExpectVersion = None,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Delete a document; its history is kept, and its versions go on from where they were.

    Example: trellis documents delete network/dns --expect-version 4
    """
    from trellis.config_sync.v1 import config_sync_pb2, config_sync_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say
    from sidecar.cli.shapes import document_shape

    request = config_sync_pb2.DeleteDocumentRequest(
        name=name, expected_version=expect_version, session=new_session(), sequence=1
    )
    with Admin(settings, timeout) as admin:
        stub = config_sync_pb2_grpc.ConfigSyncServiceStub(admin.channel)
        document = admin.write(stub.DeleteDocument, request).document
    if json:
        print_json(document_shape(document, with_value=False))
    else:
        say(f"{document.name} is deleted (version {document.version}, revision {document.revision})")
