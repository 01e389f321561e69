"""Why an answer is what it is: who taught it, why it is uncertain, sets that keep their promise."""
