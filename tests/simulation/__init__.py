"""Many short histories of a journal, its batches and its workers in a simulated world, each from one seed.

The ledger, the journal and its group commit, the batch, the job and the engine are real. The processes' event loops and
clocks, the database, the service and the queue are simulated. `python -m simulation` runs it.
"""
