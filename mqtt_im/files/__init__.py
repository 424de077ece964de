"""Floor 2: files that users upload and messages carry: their contents in a folder or an S3 store, and what is known of them.

table      files.db: what was uploaded by whom, and which messages may carry it
blobs      where contents are kept: `folder`, `s3`
receiving  an upload on its way to the disk
threads    what blocks; a download's content
uploads    what the ledger asks and tells (`store.uploads`)
service    uploads, downloads, and what leaves when nobody carries it any more
"""

from __future__ import annotations

from mqtt_im.files.service import Files, open_files

__all__ = ["Files", "open_files"]
