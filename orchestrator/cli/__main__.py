"""`python -m orchestrator.cli`: the same as the script `gpurun`, for where that is not installed."""

from orchestrator.cli import main

main()
