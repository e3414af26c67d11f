"""The task BI-RADS: how suspicious is a breast, and how suspicious is an exam (the more suspicious of its breasts)?"""

from siamray.downstream.bag_task import BagTask

TASK = BagTask("birads", {"": "breast", "exam_": "exam"})
