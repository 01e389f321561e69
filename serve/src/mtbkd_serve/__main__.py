"""`python -m mtbkd_serve`, which is `mtbkd-serve`."""

from mtbkd_serve.cli import main

main()
