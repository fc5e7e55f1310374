"""Training: what pretraining, mixture-of-experts training, tuning and distillation share, and the pretrain stage.

A stage inherits `Training`, that is `Recipe` (what is computed) and `Execution` (how). It passes a function that builds
a `Task` (the model and its loss) to `gang.train_on_gang`, which runs `loop.train` on every rank;
`checkpoints.weights` then reads the trained weights. `pretrain.py` is the example.

Interface to stages
    recipe               the fields of a stage that trains      gang               runs the loop on a gang
    task                 the model, its loss, the result        report             facts and figures of a run
    language_modelling   the task of predicting tokens          pretrain           the stage

The loop
    loop                 steps, validation, resuming            validation         loss on held-out samples
    schedule, ramp       learning rate, batch size              early_stopping     ends before the last step
    skipped_batches      spikes and non-finite gradients        trainer_state      counters and curves
    batch_losses         losses of a batch, added exactly       throughput, flops  the cost of a step
    checkpoints          one format for any ranks and stage     checkpoint_writer  written while training continues

Sharding
    zero                 ZeRO stages 0 to 3                     layout, buffers    flat groups of parameters
    gradient_reduction   gradients added over ranks             summation_tree     in a fixed order
    gradient_norm        global norm, exact                     in_flight          bounded asynchronous operations
    passes, gathering    hooks; parameters of stage 3           optimizer          AdamW on shards
    initial_weights      values for a model without any         compilation        torch.compile for the blocks
    recompute, offload   activations and state elsewhere

Memory
    memory_plan          bytes by part, before they are used    memory_usage       bytes as measured
    memory_peak          the peak of a step                     activation_memory  bytes that a forward pass keeps
"""
