"""What SageMaker's XGBoost image adds to sagemaker-containers. Runs in the image's environment."""
