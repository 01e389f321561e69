"""The student as it leaves the house: one ONNX file, its card, and the hub's layout."""
