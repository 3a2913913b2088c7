"""The parts that :class:`txmongo.collection.Collection` is made of, by what their methods are for."""
