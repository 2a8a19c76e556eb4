"""A proxyless client: `GRPC_XDS_BOOTSTRAP=… python xds_client.py TARGET COUNT` prints who answered."""

import collections
import json
import sys
import time

import grpc
import grpc.experimental
from trellis.echo.v1 import echo_pb2, echo_pb2_grpc


def main(target: str, count: int) -> None:
    fallback = grpc.experimental.insecure_channel_credentials()  # type: ignore[no-untyped-call]  # as shipped
    credentials = grpc.xds_channel_credentials(fallback)
    answered: collections.Counter[str] = collections.Counter()
    with grpc.secure_channel(target, credentials) as channel:
        echo = echo_pb2_grpc.EchoServiceStub(channel)
        for line in sys.stdin:  # one round for each line, so that the test says when
            if line.strip() == "end":
                break
            answered.clear()
            began = time.monotonic()
            for _ in range(count):
                response = echo.Echo(echo_pb2.EchoRequest(message="x"), timeout=10, wait_for_ready=True)
                answered[response.instance] += 1
            seconds = time.monotonic() - began
            print(json.dumps({"answered": answered, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
