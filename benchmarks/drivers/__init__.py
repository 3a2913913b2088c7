"""One module a driver: each answers the parent's tasks on standard input, in a process and an environment of its own."""
