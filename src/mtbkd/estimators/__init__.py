"""Distilled students as scikit-learn estimators: a classifier and a regressor."""

from mtbkd.estimators.classifier import DistilledClassifier as DistilledClassifier
from mtbkd.estimators.regressor import DistilledRegressor as DistilledRegressor
