"""The provider `runpod`: RunPod pods by its REST API v2. No vendor dict leaves this package.

    provider.py  money plane: the contract's verbs      api.py      a reply -> its data, or an error of our tree
    launch.py    one order: image, key, command         reading.py  data -> offers and pods, leniently
    command.py   what the pod runs itself               ender.py    how a pod ends itself by its own key
    door.py      its address and its host key, by what RunPod says of them

RunPod ends no pod by itself (`terminateAfter` never worked, runpodctl 330), restarts what exits, bills until DELETE.
"""

from providers.runpod.provider import RunpodProvider

__all__ = ["RunpodProvider"]
