"""The provider `lambda`: Lambda Cloud's public API, 1.10.0 and what came later. No vendor dict leaves this package.

    provider.py  money plane: the contract's verbs     api.py      a reply -> its data, or an error of our tree
    launch.py    one order: key, image, user_data      reading.py  data -> offers and instances, leniently

Nothing at Lambda ends a machine by itself, and `shutdown` on it does not stop the meter: only `terminate` does.
"""

from providers.lambdalabs.provider import LambdaProvider

__all__ = ["LambdaProvider"]
