"""The four Redis patterns of chat systems, written plainly, behind the contracts of Tidings.

Implements only the methods that `make bench` calls. README.md lists its defects.
"""

import argparse
import json
import sys
import threading
from concurrent import futures

import grpc
import psycopg
import redis

arguments = argparse.ArgumentParser()
for name in ("--proto", "--port", "--redis", "--postgres"):
    arguments.add_argument(name, required=True)
arguments = arguments.parse_args()

# grpcio-tools compiles the contracts on import.
sys.path.append(arguments.proto)
user_pb, user_grpc = grpc.protos_and_services("tidings/user/v1/user_service.proto")
history_pb, history_grpc = grpc.protos_and_services("tidings/history/v1/history_service.proto")
_, conversation_grpc = grpc.protos_and_services("tidings/history/v1/conversation_service.proto")
conversation_pb = grpc.protos("tidings/history/v1/conversation_service.proto")
message_pb = grpc.protos("tidings/history/v1/message.proto")
profile_pb = grpc.protos("tidings/user/v1/user.proto")
lock_pb, lock_grpc = grpc.protos_and_services("tidings/lock/v1/lock_service.proto")
broadcast_pb, broadcast_grpc = grpc.protos_and_services("tidings/broadcast/v1/broadcast_service.proto")
pushed_pb = grpc.protos("tidings/broadcast/v1/message.proto")

r = redis.Redis.from_url(arguments.redis, max_connections=1000)  # one per subscriber
local = threading.local()


def db():
    """Returns the connection of this thread; every statement is a transaction."""
    if not hasattr(local, "connection"):
        local.connection = psycopg.connect(arguments.postgres, autocommit=True)
    return local.connection


class Users(user_grpc.UserServiceServicer):
    def CreateUser(self, request, context):
        user = request.user
        db().execute("INSERT INTO users VALUES (%s, %s, %s)", (user.id, user.display_name, user.age))
        return user_pb.CreateUserResponse(user=user)

    def GetUser(self, request, context):
        cached = r.get(f"user_info_{request.id}")
        if cached:
            name, age = json.loads(cached)
        else:
            name, age = db().execute("SELECT name, age FROM users WHERE id = %s", (request.id,)).fetchone()
            r.set(f"user_info_{request.id}", json.dumps([name, age]))
        return user_pb.GetUserResponse(user=profile_pb.User(id=request.id, display_name=name, age=age))

    def BatchGetUsers(self, request, context):
        results = []
        for id, cached in zip(request.ids, r.mget([f"user_info_{id}" for id in request.ids])):
            if cached:
                name, age = json.loads(cached)
                user = profile_pb.User(id=id, display_name=name, age=age)
            else:
                user = self.GetUser(user_pb.GetUserRequest(id=id), context).user
            results.append(user_pb.BatchGetUsersResult(id=id, outcome="OUTCOME_FOUND", user=user))
        return user_pb.BatchGetUsersResponse(results=results)


class Conversations(conversation_grpc.ConversationServiceServicer):
    def CreateConversation(self, request, context):
        return conversation_pb.CreateConversationResponse(conversation=request.conversation)


class History(history_grpc.HistoryServiceServicer):
    def append(self, request):
        text = request.body.text
        row = (request.conversation_id, request.sender_id, text)
        statement = "INSERT INTO messages (conversation, sender, text) VALUES (%s, %s, %s) RETURNING id"
        seq = db().execute(statement, row).fetchone()[0]
        r.rpush(f"message_history_{request.conversation_id}", json.dumps([seq, request.sender_id, text]))
        message = message_pb.Message(conversation_id=request.conversation_id, seq=seq, sender_id=request.sender_id)
        return history_pb.AppendMessageResponse(message=message)

    def AppendMessage(self, request, context):
        return self.append(request)

    def BatchAppendMessages(self, request, context):
        results = [history_pb.BatchAppendMessagesResult(appended=self.append(item)) for item in request.requests]
        return history_pb.BatchAppendMessagesResponse(results=results)

    def ListMessages(self, request, context):
        key = f"message_history_{request.conversation_id}"
        rows = [json.loads(row) for row in r.lrange(key, 0, -1)]
        if not rows:
            statement = "SELECT id, sender, text FROM messages WHERE conversation = %s ORDER BY id"
            rows = db().execute(statement, (request.conversation_id,)).fetchall()
            for row in rows:
                r.rpush(key, json.dumps(row))
        messages = [
            message_pb.Message(seq=seq, sender_id=sender, body=message_pb.Body(text=text)) for seq, sender, text in rows
        ]
        return history_pb.ListMessagesResponse(messages=messages)


class Locks(lock_grpc.LockServiceServicer):
    def AcquireLock(self, request, context):
        if r.setnx(f"order_lock_{request.name}", 1):
            return lock_pb.AcquireLockResponse(granted=lock_pb.AcquireLockResponse.Granted())
        return lock_pb.AcquireLockResponse(held=lock_pb.AcquireLockResponse.Held())

    def ReleaseLock(self, request, context):
        r.delete(f"order_lock_{request.name}")
        return lock_pb.ReleaseLockResponse(outcome=lock_pb.ReleaseLockResponse.OUTCOME_RELEASED)


class Broadcast(broadcast_grpc.BroadcastServiceServicer):
    def Publish(self, request, context):
        r.publish(request.channel, request.data)
        return broadcast_pb.PublishResponse()

    def Subscribe(self, request, context):
        channel = request.channels[0].channel
        subscription = r.pubsub()
        subscription.subscribe(channel)
        for event in subscription.listen():
            if event["type"] == "subscribe":
                yield broadcast_pb.SubscribeResponse(caught_up=broadcast_pb.CaughtUp(channel=channel))
            elif event["type"] == "message":
                message = pushed_pb.Message(channel=channel, data=event["data"])
                yield broadcast_pb.SubscribeResponse(messages=broadcast_pb.Messages(messages=[message]))


db().execute("CREATE TABLE IF NOT EXISTS users (id text PRIMARY KEY, name text, age int)")
db().execute("CREATE TABLE IF NOT EXISTS messages (id bigserial PRIMARY KEY, conversation text, sender text, text text)")
db().execute("CREATE INDEX IF NOT EXISTS messages_of ON messages (conversation, id)")
# Every call and stream in flight needs a thread: 100 subscribers and 64 callers.
server = grpc.server(futures.ThreadPoolExecutor(max_workers=200))
user_grpc.add_UserServiceServicer_to_server(Users(), server)
conversation_grpc.add_ConversationServiceServicer_to_server(Conversations(), server)
history_grpc.add_HistoryServiceServicer_to_server(History(), server)
lock_grpc.add_LockServiceServicer_to_server(Locks(), server)
broadcast_grpc.add_BroadcastServiceServicer_to_server(Broadcast(), server)
server.add_insecure_port(f"127.0.0.1:{arguments.port}")
server.start()
print("ready", flush=True)
sys.stdin.read()  # ends when the parent process closes the pipe
server.stop(0)
