"""What one run leaves behind: a directory of files, readable after a crash at any moment."""

from netlab.recording.directory import Recording, RecordingWriter
from netlab.recording.manifest import Manifest

__all__ = ["Manifest", "Recording", "RecordingWriter"]
