"""What a run tells other tools while it goes on: TensorBoard, MLflow, Weights & Biases; one file each."""
