"""Networks on torch: what is learned, how it is trained and loaded, and the files it is kept in.

The libraries `torch` and `caffe` are two faces of it. A template (`ml.templates`) gives the network, a task
(`ml.neural.task`) the loss and what outputs mean, a table the batches; the trainer joins them and knows none of them.
"""
