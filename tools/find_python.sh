#!/bin/sh
# Prints the name of the Python that makes the environment: python3 if it is 3.11 to 3.13, else the newest suitable one.
# Plain sh, because a machine without a suitable Python must get a sentence and not a stack trace.

check='import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
command -v uv >/dev/null 2>&1 || check="import ensurepip; $check"  # uv brings its own pip

for name in python3 python3.13 python3.12 python3.11; do
  if "$name" -c "$check" >/dev/null 2>&1; then
    echo "$name"
    exit
  fi
done

found=$(python3 --version 2>/dev/null) || found="no python3"
echo "RecBandits needs Python 3.11, 3.12 or 3.13 with its venv module (Debian and Ubuntu: package python3-venv), but found $found:" \
  "install one and run make again." >&2
exit 1
