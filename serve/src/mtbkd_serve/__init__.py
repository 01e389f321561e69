"""Serves a student that `mtbkd export` wrote: onnxruntime inside, no torch, nothing else needed."""
