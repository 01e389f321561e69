"""What a user's mistake raises; without torch, so that the command line answers at once."""


class InputError(ValueError):
    """What the user gave is wrong; ``faults`` holds one message for each fault.

    Each message reads "Expected *what*, but got *value*. *What to do.*" and names the id, class,
    key or file. The command line prints them without a traceback and exits with code 2.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
