"""Was granted a secret, says it wherever it can, and fails with it."""

import sys

token = open("token.txt").read()
print(f"the token is {token}")
print("x" * 8_190 + token, file=sys.stderr)
sys.exit(f"it failed with {token}")
