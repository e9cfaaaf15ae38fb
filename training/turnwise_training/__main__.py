"""`python -m turnwise_training`: the command line, as `accelerate launch -m turnwise_training` starts it."""

from turnwise_training.cli import main

main()
