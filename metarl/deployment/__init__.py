"""Deployment: adaptation to logged episodes, export as ONNX, and the live viewer."""
