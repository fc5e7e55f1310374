"""Training, the library: what pretraining, mixture-of-experts training, tuning and distillation share.

A stage inherits `Recipe` (what is computed) and `Execution` (how), writes a module-level function that builds a
`Task` (the model and its loss), and runs `loop.train` on a gang with a `TrainingSpec`. `checkpoints.weights` then
reads the trained weights. `stages/pretrain.py` is the example.

    recipe      the fields                 loop         steps, validation, guards, resume
    task        the seam to stages         checkpoints  one form for any ranks and stage
    windows     samples of a token set     zero         sharded parameters, gradients, optimizer state
    order       which sample comes when    collectives  what ranks send, counted
    schedule    the learning rate          layout, tree flat groups; sums in a fixed order
    memory      bytes before they are used head         cross-entropy without all logits at once
    flops       operations of a step       buffers      a group's flat tensors
    report      figures and facts          optimizer    AdamW on shards
"""
