"""Prose test of the CRUD specification, on what a server in memory reads. The others want a real one."""

from __future__ import annotations

from pymongo.operations import InsertOne

from tests.unit.clients import ClientCase


class GeneratedIdTests(ClientCase):
    """Documents without ``_id``."""

    def test_first_field_16(self) -> None:
        """The identifier that they are given is their first field on the wire, by whichever method they come."""
        self.server.answer("insert", {"n": 1})
        things = self.client().test.things
        inserts = [InsertOne({"x": 1}), InsertOne({"x": 2})]
        self.result(things.insert_one({"x": 1}))
        self.result(things.insert_many([{"x": 1}, {"x": 2}]))
        self.result(things.bulk_write(inserts))
        self.result(things.bulk_write([InsertOne({"x": 1}), InsertOne({"x": 2})], ordered=False))
        commands = self.server.commands("insert")
        self.assertEqual([len(command["documents"]) for command in commands], [1, 2, 2, 2])
        for command in commands:
            for document in command["documents"]:
                self.assertEqual(list(document), ["_id", "x"])
