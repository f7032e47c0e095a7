"""Stories of runs, and all that reads what they leave, on a PostgreSQL server.

Each test here is one of another module, where it runs on an SQLite file: together they execute the
statements of every module of the graph. `make soak` runs all tests of the graph on PostgreSQL.
"""
