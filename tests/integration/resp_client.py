"""Asks a daemon through Redis' client for Python: python3 resp_client.py PORT [TOKEN]. Prints ok, or fails."""

import asyncio
import sys

import redis
import redis.asyncio

port, token = int(sys.argv[1]), (sys.argv[2:] or [None])[0]


def asks(protocol):
    client = redis.Redis(port=port, protocol=protocol, password=token, decode_responses=True, client_name="py")
    assert client.ping() is True
    assert client.echo("hello") == "hello"
    assert client.client_getname() == "py"
    key = f"py{protocol}"
    assert client.execute_command("CL.THROTTLE", key, 2, 1, 3600) == [0, 3, 2, -1, 3600]
    pipeline = client.pipeline(transaction=False)
    for _ in range(4):
        pipeline.execute_command("CL.THROTTLE", key, 2, 1, 3600)
    assert [answer[0] for answer in pipeline.execute()] == [0, 0, 1, 1]
    assert client.execute_command("THROTTLE", key, 2, 1, 3600) == [1, 2, 1, 3600, 0]
    answer = client.execute_command("SPILLGATE.CHECK", "api", key, 7)
    if protocol == 2:
        answer = dict(zip(answer[::2], answer[1::2]))
    assert answer["allowed"] == 1 and answer["remaining"] == 993 and answer["reason"] is None, answer
    try:
        client.execute_command("SPILLGATE.CHECK", "nowhere", key)
        raise AssertionError("an unknown limit was known")
    except redis.ResponseError as error:
        assert "known are api" in str(error), error
    assert client.info()["spillgate_version"]
    assert client.command_count() == len(client.command())
    client.close()


async def asks_at_once():
    pool = redis.asyncio.BlockingConnectionPool(port=port, password=token, max_connections=10)
    client = redis.asyncio.Redis.from_pool(pool)
    asked = [client.execute_command("CL.THROTTLE", "async", 49, 1, 3600) for _ in range(80)]
    limited = [answer[0] for answer in await asyncio.gather(*asked)]
    assert (limited.count(0), limited.count(1)) == (50, 30), limited
    await client.aclose()


asks(2)
asks(3)
asyncio.run(asks_at_once())
if token:
    for wrong in ("wrong", None):
        try:
            redis.Redis(port=port, password=wrong).ping()
            sys.exit("let in without the token")
        except redis.AuthenticationError:
            pass
print("ok")
