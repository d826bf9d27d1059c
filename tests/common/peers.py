# What the tests that meet real programs share: waiting, ports, nginx and ffprobe.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import socket
import subprocess
import time

NGINX_RTMP = """
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{}}
rtmp {{
  access_log off;
  server {{
    listen 127.0.0.1:{port};
    application live {{ live on; {record} }}
  }}
}}
"""


def until(condition, seconds=60):
    """What `condition` returns, once it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)
    return value


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def nginx_rtmp(directory, port, record=False):
    """Writes a configuration of nginx that takes streams as rtmp://127.0.0.1:port/live/NAME, and returns the command."""
    config = f"{directory}/nginx.conf"
    record = f"record all; record_path {directory};" if record else ""
    with open(config, "w") as file:
        file.write(NGINX_RTMP.format(directory=directory, port=port, record=record))
    return ["/usr/sbin/nginx", "-p", str(directory), "-c", config, "-e", "stderr"]


def ffprobe(*arguments, directory="."):
    """What ffprobe prints: a list of values for each line. If it complains, that is raised."""
    command = ["ffprobe", "-v", "error", "-of", "csv=p=0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory)
    if done.returncode or done.stderr:
        raise RuntimeError(f"{command}: {done.stderr}")
    return [line.strip(",").split(",") for line in done.stdout.split("\n") if line.strip(",")]
