"""The task density, a check that an encoder sees what is plain to see: which of the letters A to D has a breast?"""

from siamray.downstream.bag_task import BagTask

TASK = BagTask("density", {"": "breast"})
