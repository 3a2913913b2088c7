"""One module a driver: each answers the parent on standard input, in a process and an environment of its own."""
