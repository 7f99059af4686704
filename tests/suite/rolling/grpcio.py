"""Calls a method repeatedly with grpcio and a service config until standard input ends.

Arguments: addresses, path of the service config, method, request in hex. Prints the number of
successful and failed calls and the first failures as JSON.
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
    # The authority defaults to the target, but a list of addresses is not a valid authority.
    ("grpc.default_authority", "tidings"),
]
stop = threading.Event()
answered = []
failures = []


def call_until_stopped(call):
    count = 0
    while not stop.is_set():
        try:
            call(request)
            count += 1
        except grpc.RpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")
    answered.append(count)


with grpc.insecure_channel(f"ipv4:{addresses}", options=options) as channel:
    # Without serializers, messages are raw bytes.
    call = channel.unary_unary(method)
    callers = [threading.Thread(target=call_until_stopped, args=(call,)) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    sys.stdin.read()
    stop.set()
    for caller in callers:
        caller.join()
print(json.dumps({"answered": sum(answered), "failed": len(failures), "first": failures[:3]}))
