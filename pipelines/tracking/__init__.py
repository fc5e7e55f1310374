"""MLflow: what a run, its steps, its models and its datasets look like there.

    tracker            an observer of the runner: turns what happens into operations      (imports no mlflow)
    operations         a run in MLflow's terms, as plain values
    spool              the operations that MLflow has not yet taken, on disk
    sender             the one thread that waits for MLflow
    mlflow_connection  a client for one MLflow      (this and mlflow_store alone import mlflow)
    mlflow_store       carries operations out
    ui                 `bloomline ui`

MLflow down, slow or broken neither fails nor delays a run.
"""
