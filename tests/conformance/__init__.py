"""The MongoDB driver specification tests, run against this driver."""
