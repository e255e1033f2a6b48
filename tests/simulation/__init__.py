"""Many short histories of a journal, its batches and its workers, in a simulated world, each from one seed.

Real are the ledger, the journal and its group commit, the batch, the job and the engine. Simulated are the processes'
event loops and clocks, the database, the service and the queue. `python -m simulation` runs it.
"""
