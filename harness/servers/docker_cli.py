"""Ask Docker through its command line: which images are here, what became of a container.

The only file that runs `docker` and waits for the answer. It starts no container: that is container.py's.
Knows no engine.
"""

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from harness.errors import MissingError, UserError

# The images that this project's Dockerfiles make; all others are pulled.
OWN_IMAGES = "serving-bench/"


@dataclass(frozen=True)
class Answer:
    """What a docker command said.

    `code` is its exit code, None if there was no answer in time. `error` is what it complained of.
    """

    code: int | None
    text: str
    error: str


def ask(*arguments: str, timeout_s: float = 30.0) -> Answer:
    """Return what `docker ARGUMENTS` prints. Block for up to timeout_s.

    Raises nothing of its own: if there is no docker, that is the answer.
    """
    try:
        # In a session of its own: Ctrl-C in a terminal is bench's to act on.
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"docker {arguments[0]} did not answer within {timeout_s:g} s")
    except OSError as error:
        return Answer(None, "", f"docker cannot be run: {error.strerror}")
    return Answer(done.returncode, done.stdout.strip("\n"), " ".join(done.stderr.split())[:500])


def check(images: Iterable[str]) -> None:
    """Check that containers of these images can be started here. Bench itself never pulls one.

    Blocks for up to a minute. Raises MissingError, which says what to run, and UserError if Docker is on
    another machine.
    """
    if shutil.which("docker") is None:
        raise MissingError(
            "engine.launcher=docker: there is no docker program here; install Docker Engine "
            "(on Debian: apt-get install docker.io docker-cli)"
        )
    # The servers listen on 127.0.0.1 of the machine that Docker is on, and use its memory and devices.
    host = ask("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").text
    if host.startswith(("tcp://", "ssh://", "http")):
        raise UserError(
            f"engine.launcher=docker: Docker is on another machine ({host}); bench must run there, and "
            "measures a server elsewhere with engine.base_url"
        )
    version = ask("version", "--format", "{{.Server.Version}}")
    if version.code != 0:
        raise MissingError(
            f"engine.launcher=docker: Docker does not answer ({version.error}); start its daemon, and where "
            "it refuses this user, add them to the group docker"
        )
    for image in dict.fromkeys(images):
        found = ask("image", "inspect", "--format", "{{.Id}}", image)
        if found.code != 0 and "no such image" not in found.error.lower():
            raise MissingError(f"image {image}: Docker does not say whether it is here: {found.error}")
        if found.code != 0:
            raise MissingError(f"image {image} is not here; run `{how_to_get(image)}`")


def how_to_get(image: str) -> str:
    """Return the command that makes or fetches an image."""
    return "make images" if image.startswith(OWN_IMAGES) else f"docker pull {image}"


def image_facts(image: str) -> Mapping[str, str | None]:
    """Return what identifies an image, and Docker's version. What Docker does not say is None.

    `image_digest` is None for an image that was built here; `image_version` is a label of the image's.
    """
    found = ask("image", "inspect", "--format", "{{json .}}", image)
    about: Mapping[str, Any] = msgspec.json.decode(found.text) if found.code == 0 else {}
    labels = (about.get("Config") or {}).get("Labels") or {}
    version = ask("version", "--format", "{{.Server.Version}}")
    return {
        "image": image,
        "image_id": about.get("Id"),
        "image_digest": next((name.partition("@")[2] for name in about.get("RepoDigests") or ()), None),
        "image_created": about.get("Created"),
        "image_version": labels.get("org.opencontainers.image.version"),
        "docker_version": version.text if version.code == 0 else None,
    }
