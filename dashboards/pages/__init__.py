"""The pages of the dashboards: an experiment in, Dash components out; the app and the export show the same ones."""
