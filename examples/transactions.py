"""Money that moves between accounts: sessions, transactions, and what happens when two of them meet.

Runs on the replica set that $MONGODB_URI names, else on a throw-away one. It works in a database of its own, which it
drops again: txmongo_transactions.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import defer, task

from txmongo import ConnectionPool
from txmongo.collection import Collection
from txmongo.errors import OperationFailure
from txmongo.sessions import ClientSession
from txmongo.testing import ReplicaSet

DATABASE = "txmongo_transactions"
TRANSFERS = 20


class TooLittleMoney(Exception):
    """An account has less than is wanted from it."""


async def main(reactor: Any) -> None:
    """Show it on the replica set that there is, or on one that is started for it."""
    uri = os.environ.get("MONGODB_URI")
    if uri:
        await show(uri)
        return
    print("$MONGODB_URI is not set: starting a throw-away replica set")
    members = await ReplicaSet(reactor, 1).start()
    try:
        await show(members.uri)
    finally:
        await members.stop()
        print("The throw-away replica set is gone")


async def show(uri: str) -> None:
    """Connect, show everything once, clean up."""
    client: ConnectionPool[dict[str, Any]] = ConnectionPool(uri, w="majority")
    try:
        await client.drop_database(DATABASE)
        accounts = client[DATABASE].accounts
        await accounts.insert_many([{"_id": "alice", "balance": 100}, {"_id": "bob", "balance": 0}])
        await all_or_nothing(client, accounts)
        await conflict(client, accounts)
        await many_at_once(client, accounts)
        await yielded(client, accounts)
        await client.drop_database(DATABASE)
    finally:
        await client.disconnect()
    print("Disconnected")


async def move(accounts: Collection[dict[str, Any]], session: ClientSession, amount: int) -> None:
    """Move money from alice to bob, as part of the session's transaction."""
    await accounts.update_one({"_id": "bob"}, {"$inc": {"balance": amount}}, session=session)
    taken = await accounts.find_one_and_update(
        {"_id": "alice", "balance": {"$gte": amount}}, {"$inc": {"balance": -amount}}, session=session
    )
    if taken is None:
        raise TooLittleMoney(amount)


async def balances(accounts: Collection[dict[str, Any]]) -> str:
    """What both have."""
    return ", ".join([f"{account['_id']} has {account['balance']}" async for account in accounts.find().sort("_id", 1)])


async def all_or_nothing(client: ConnectionPool[dict[str, Any]], accounts: Collection[dict[str, Any]]) -> None:
    """A transaction is committed at the end of its block; an exception that leaves the block aborts it."""
    async with client.start_session() as session:
        async with session.start_transaction():
            await move(accounts, session, 30)
        print(f"After 30: {await balances(accounts)}")
        try:
            async with session.start_transaction():
                await move(accounts, session, 1000)
        except TooLittleMoney as error:
            print(f"After {error}: {await balances(accounts)}")


async def conflict(client: ConnectionPool[dict[str, Any]], accounts: Collection[dict[str, Any]]) -> None:
    """Two transactions that change the same document: the second fails, and its error says that it may try again."""
    async with client.start_session() as first, client.start_session() as second:
        first.start_transaction()
        second.start_transaction()
        await move(accounts, first, 1)
        try:
            await move(accounts, second, 1)
        except OperationFailure as error:
            again = error.has_error_label("TransientTransactionError")
            print(f"A conflict: code {error.code}, may be tried again: {again}")
        await first.commit_transaction()
        # The server has aborted the second already; the end of its block tells it once more, which does no harm.


async def many_at_once(client: ConnectionPool[dict[str, Any]], accounts: Collection[dict[str, Any]]) -> None:
    """with_transaction runs its function again until the transaction is committed."""
    runs = 0

    async def callback(session: ClientSession) -> None:
        nonlocal runs
        runs += 1
        await move(accounts, session, 1)

    async def transfer() -> None:
        async with client.start_session() as session:
            await session.with_transaction(callback)

    await defer.gatherResults([defer.Deferred.fromCoroutine(transfer()) for _ in range(TRANSFERS)])
    print(f"After {TRANSFERS} transfers at once: {await balances(accounts)}")
    print(f"They took {runs} runs")


@defer.inlineCallbacks
def yielded(client: ConnectionPool[dict[str, Any]], accounts: Collection[dict[str, Any]]) -> Any:
    """The same with inlineCallbacks, which knows no ``async with``."""
    session = client.start_session()
    try:
        session.start_transaction()
        yield accounts.update_one({"_id": "alice"}, {"$inc": {"balance": 49}}, session=session)
        yield session.abort_transaction()
        alice = yield accounts.find_one("alice", session=session)
        print(f"After an abort: alice has {alice['balance']}")
    finally:
        yield session.end_session()


if __name__ == "__main__":
    task.react(main)
