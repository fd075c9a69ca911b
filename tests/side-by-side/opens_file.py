"""Opens the machine's files."""

print(open("/etc/passwd").read())
