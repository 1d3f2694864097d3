"""What SageMaker's scikit-learn image adds to sagemaker-training. Runs in the image's environment.

It serves through sagemaker-containers, as the XGBoost image does.
"""
