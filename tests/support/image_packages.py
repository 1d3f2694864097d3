"""What SageMaker's XGBoost image has of the packages that model/ and sm_mlops.tabular import."""

# Image 3.2-0, https://github.com/aws/sagemaker-xgboost-container: change it with the image.
CONTAINER = {
    "matplotlib": "3.10.9",
    "numpy": "2.1.0",
    "pandas": "2.2.3",
    "pyarrow": "22.0.0",
    "pyyaml": "6.0.1",
    "scikit-learn": "1.8.0",
    "scipy": "1.15.0",
    "xgboost": "3.2.0",
}
MODULES = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
# By file, what else it may import: boto3 of whatever version to list the data of a job.
TOOLKIT = {name: {"boto3", "botocore"} for name in ("monitor.py", "source.py")}
