"""Closed forms of queues with many servers, the check of the simulation and the shortcut at scale.

M/M/n: Poisson arrivals, exponential service, n servers, first in, first out (Erlang 1917).  M/G/n:
its waits times (1 + cv^2) / 2 (Allen and Cunneen's approximation, as in Whitt 1993, exact for
n = 1 by Pollaczek and Khinchine in the mean).

Erlangs: servers that are busy on average, arrivals a second times the mean seconds of service.
"""

from math import exp, inf, lgamma, log


def erlang_c(servers: int, erlangs: float) -> float:
    """Probability that a request waits, in M/M/n; 1 where the queue would grow for ever.

    By Erlang's B, the Poisson probability of n over that of at most n: exact for any number of
    servers, without a recursion."""
    if erlangs >= servers:
        return 1.0
    if erlangs <= 0:
        return 0.0
    from scipy.special import pdtr

    exactly = exp(servers * log(erlangs) - erlangs - lgamma(servers + 1))
    blocked = exactly / float(pdtr(servers, erlangs))
    return blocked / (1 - erlangs / servers * (1 - blocked))


def mean_wait_s(servers: int, erlangs: float, service_s: float, cv2: float) -> float:
    """Of all requests, in M/G/n.  cv2: squared coefficient of variation of the service."""
    if erlangs >= servers:
        return inf
    waits = erlang_c(servers, erlangs)
    return waits * service_s / (servers - erlangs) * (1 + cv2) / 2


def wait_quantile_s(
    servers: int, erlangs: float, service_s: float, cv2: float, share: float
) -> float:
    """The wait that so large a share of the requests stays under: those that wait do so
    exponentially."""
    if erlangs >= servers:
        return inf
    waits, late = erlang_c(servers, erlangs), 1 - share
    if waits <= late:
        return 0.0
    scale = service_s / (servers - erlangs) * (1 + cv2) / 2
    return scale * log(waits / late)


def servers_for(erlangs: float, service_s: float, cv2: float, share: float, within_s: float) -> int:
    """The fewest servers at which so large a share of the requests waits at most `within_s`."""
    low, high = int(erlangs), int(erlangs) + 1
    while wait_quantile_s(high, erlangs, service_s, cv2, share) > within_s:
        low, high = high, high + max(1, high - int(erlangs))
    while high - low > 1:
        middle = (low + high) // 2
        if wait_quantile_s(middle, erlangs, service_s, cv2, share) > within_s:
            low = middle
        else:
            high = middle
    return high
