"""Training, the library: what pretraining, mixture-of-experts training, tuning and distillation share.

A stage inherits `Recipe` (what is computed) and `Execution` (how), writes a module-level function that builds a
`Task` (the model and its loss), and has `gang.train_on_gang` run `loop.train` on it. `checkpoints.weights` then
reads the trained weights. `stages/training/pretrain.py` is the example.

    recipe      the fields                 loop         steps, guards, resume
    task        the seam to stages         progress     how far a run has come
    windows     samples of a token set     validation   the loss on held-out samples, by source and language
    order       which sample comes when    checkpoints  one form for any ranks and stage
    schedule    the learning rate          saving       written while training goes on
    ramp        the batch size             zero         sharded parameters, gradients, optimizer state
    guard       batches to skip            collectives  what ranks send, counted and timed
    stopping    ends before the last step  layout, tree flat groups; sums in a fixed order
    memory      bytes before they are used head         cross-entropy without all logits at once
    meter       seconds, bytes, operations buffers      a group's flat tensors
    flops       operations of a step       optimizer    AdamW on shards
    sums        losses, summed exactly     compilation  torch.compile for the blocks
    report      figures and facts          gathering    stage 3: what is whole while a pass goes on
    recompute   activations not kept       gradients    summed and exchanged, a bucket at a time
    offload     state in files             materialise  values for a model without any
    meters      what memory really holds   activations  what a pass keeps, for the planner
    gang        where a stage starts it    peak         a step played through, in bytes
"""
