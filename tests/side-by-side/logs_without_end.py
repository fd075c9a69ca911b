"""Logs two megabytes, and then ends well."""

for number in range(20_000):
    print(number, "a long line \x1b[31mwith a terminal escape".ljust(80, "."))
