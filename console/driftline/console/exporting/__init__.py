"""What `driftline exporter` shows to Prometheus: the latest alerts, and where the apps stand on the log."""

from driftline.console.exporting.board import AlertBoard, LabelLimits
from driftline.console.exporting.collector import ExporterCollector
from driftline.console.exporting.standings import AppStanding, read_standing
from driftline.console.exporting.watcher import Watcher

__all__ = [
    "AlertBoard",
    "AppStanding",
    "ExporterCollector",
    "LabelLimits",
    "Watcher",
    "read_standing",
]
