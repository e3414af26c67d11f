"""The figures of a report: each is a pure data function (results to a tidy table) and a drawing function."""
