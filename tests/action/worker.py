"""The runner's worker: for each line of JSON, [argv, environment, folder], it runs that and says how it ended.

Started on its own, by the distribution's Python; it has the name that the real one has.
"""

import ctypes
import json
import subprocess
import sys

ctypes.CDLL(None).prctl(15, b"Runner.Worker")  # PR_SET_NAME
print("ready", flush=True)
for line in sys.stdin:
    argv, environ, folder = json.loads(line)
    log = subprocess.PIPE
    done = subprocess.run(
        argv, env=environ, cwd=folder, check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
    )
    print(json.dumps([done.returncode, done.stdout.decode(errors="replace")]), flush=True)
