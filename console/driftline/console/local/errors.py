"""What can go wrong with the local services, each with the line that mends it.

LocalServiceError
├── JavaError          no Java, or one older than 17
├── MavenError         no mvn, and the artifacts are not here yet
├── ArtifactsError     mvn could not resolve the artifacts
├── PortInUseError     somebody else listens on the port that was asked for
├── OtherPortError     the service runs already, on another port than was asked for
├── ExitedEarlyError   the process ended before it answered
└── NotReadyError      the process lives, and did not answer in time
"""

from collections.abc import Sequence

EXISTING_CLUSTER = (
    "use an existing cluster: export DRIFTLINE_BOOTSTRAP_SERVERS=HOST:9092 DRIFTLINE_REGISTRY_URL=http://HOST:8081"
)
"""The way round every local service that cannot be had; the end of the line of each error that says so."""


class LocalServiceError(Exception):
    """A local service cannot be started, or is not what was asked for.

    Attributes:
        mend: One plain line: what is wrong, then the command that mends it. Also `str(error)`.
        log_tail: The last lines of the service's log where there are any, oldest first.
    """

    def __init__(self, mend: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(mend)
        self.mend = mend
        self.log_tail = tuple(log_tail)


class JavaError(LocalServiceError):
    """There is no Java here, or one that is too old."""


class MavenError(LocalServiceError):
    """There is no mvn here to resolve the artifacts with."""


class ArtifactsError(LocalServiceError):
    """Maven ran and could not resolve the artifacts."""


class PortInUseError(LocalServiceError):
    """Another process listens on the port that was asked for."""


class OtherPortError(LocalServiceError):
    """The service runs already, on another port than was asked for."""


class ExitedEarlyError(LocalServiceError):
    """The service's process ended before it answered a request."""


class NotReadyError(LocalServiceError):
    """The service's process did not answer a request within its deadline, and was stopped."""
