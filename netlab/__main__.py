"""`python -m netlab`, which works whatever else is called netlab on this machine."""

from netlab.cli import main

main()
