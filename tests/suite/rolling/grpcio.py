"""Calls a method again and again through gRPC's own library, as a service config says, until standard input ends.

Arguments: addresses, the service config, the method, the request in hex. Prints what became of the calls, as JSON.
"""

import json
import sys
import threading

import grpc

CALLERS = 4

addresses, config, method, request = sys.argv[1:]
request = bytes.fromhex(request)
options = [
    ("grpc.service_config", open(config, encoding="utf-8").read()),
    # A list of addresses is no authority; the name of a service would be one.
    ("grpc.default_authority", "tidings"),
]
over = threading.Event()
answered = []
failures = []


def call_again_and_again(call):
    count = 0
    while not over.is_set():
        try:
            call(request)
            count += 1
        except grpc.RpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")
    answered.append(count)


with grpc.insecure_channel(f"ipv4:{addresses}", options=options) as channel:
    # Messages are taken as bytes: what is in them is not what is tried here.
    call = channel.unary_unary(method)
    callers = [threading.Thread(target=call_again_and_again, args=(call,)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    sys.stdin.read()
    over.set()
    for caller in callers:
        caller.join()
print(json.dumps({"answered": sum(answered), "failed": len(failures), "first": failures[:3]}))
