"""The artifact store: staging, atomic commit with the record last, verification, leases, collection.

Under a root (a local directory or any fsspec URI):

    records/FINGERPRINT.json                     written last and atomically; a hit needs it and the files it lists
    artifacts/STAGE/STEP-FINGERPRINT16-ATTEMPT/  immutable files, never written twice: a re-run makes a new attempt
    latest/PIPELINE/STEP.json                    the fingerprint that a step had last, to tell what changed since
    leases/FINGERPRINT.json                      who is computing it now, with a heartbeat

and in a local state directory: staging/, scratch/FINGERPRINT16/, runs/, digests.sqlite, and for a remote root cache/.
"""

from pipelines.store.files import StoreError
from pipelines.store.record import FileEntry, Record
from pipelines.store.store import Damage, Store
from pipelines.store.store_config import StoreConfig

__all__ = ["Damage", "FileEntry", "Record", "Store", "StoreConfig", "StoreError"]
