"""An encoder goes in; metrics of what it is good for, with intervals, come out."""
