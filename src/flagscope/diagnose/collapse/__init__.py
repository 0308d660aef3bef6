"""Neural collapse, NC1 to NC4, of a classifier's last features, in a stream of batches.

V. Papyan, X. Y. Han, D. L. Donoho, Prevalence of neural collapse during the terminal phase of deep
learning training, PNAS 117 (2020) 24652-24663.
"""

from flagscope.diagnose.collapse.accumulate import NeuralCollapse
from flagscope.diagnose.collapse.agreement import CentreAgreement
from flagscope.diagnose.collapse.loops import neural_collapse, neural_collapse_of_module
from flagscope.diagnose.collapse.metrics import simplex_fit
from flagscope.diagnose.collapse.records import CollapseRecord, SimplexFit

__all__ = [
    "CentreAgreement",
    "CollapseRecord",
    "NeuralCollapse",
    "SimplexFit",
    "neural_collapse",
    "neural_collapse_of_module",
    "simplex_fit",
]
