"""The public tasks. Importing this module registers all of them."""

from pipeline.tasks.lake import Conform as Conform
from pipeline.tasks.lake import ConformZones as ConformZones
from pipeline.tasks.lake import Download as Download
from pipeline.tasks.lake import DownloadZones as DownloadZones
from pipeline.tasks.runs import Backfill as Backfill
from pipeline.tasks.runs import Latest as Latest
from pipeline.tasks.runs import RangeMonthly as RangeMonthly
from pipeline.tasks.warehouse import Expose as Expose
from pipeline.tasks.warehouse import Load as Load
from pipeline.tasks.warehouse import LoadZones as LoadZones
from pipeline.tasks.warehouse import Mart as Mart
