"""Extensions of the training loop: one file for each thing that lands in a run's folder.

See `training.extensions.extension.Extension` for the protocol and an example.
"""
