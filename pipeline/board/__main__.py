"""`python -m pipeline.board FD`: what `pipeline board` becomes; FD is a pipe with all options and settings as JSON."""

import asyncio
import json
import os
import sys

from pipeline.board.server import Options, serve
from pipeline.errors import PipelineError, visible
from pipeline.settings import Settings, adopt
from pipeline.tasks.luigi_options import prepare_luigi

if not sys.argv[1:]:
    sys.exit("pipeline: start it with: pipeline board")
with os.fdopen(int(sys.argv[1])) as pipe:
    given = json.load(pipe)
adopt(Settings(**given["settings"]))
prepare_luigi(given["luigi"])
try:
    asyncio.run(serve(Options(**given["options"])))
except PipelineError as error:
    print(visible(f"pipeline: {error}"), file=sys.stderr)
    sys.exit(2)
