"""Answers over a server that breaks on command: its faults, the rules for what may come out, and what must not be left.

server.py    the server, and its faults
rules.py     which outcomes are right, as tables
cells.py     the cells: fault x stage x policy x way; all of them, and a sample with every pair
clients.py   the clients of the frameworks, and how they meet a refused connection or a short timeout
surfaces.py  the ways to ask for an answer: of the chain, the chat model, the query engine and the command
verdict.py   from what came out to the name of an outcome
leftovers.py threads, tasks, sockets and requests that are still there
matrix.py    runs cells and judges them
soak.py      many answers, of which many are left early
"""
